// A relay of a third make: npm's @nostr-relay over ws, with a small store in memory.
// node node_relay.cjs NODE_MODULES PORT open|auth     prints `ready URL`, ends with its stdin
const { createRequire } = require('module');
const http = require('http');
const [modules, port, mode] = process.argv.slice(2);
const load = createRequire(modules + '/');
const { WebSocketServer } = load('ws');
const { NostrRelay } = load('@nostr-relay/core');
const { EventRepository, EventUtils, LogLevel } = load('@nostr-relay/common');
const { Validator } = load('@nostr-relay/validator');
const authWanted = mode === 'auth';

class Memory extends EventRepository {
  events = new Map();

  isSearchSupported() { return false; }

  // Replaceable and addressable events share one key, the others are their id.
  key(event) {
    const { kind, pubkey } = event;
    if (kind === 0 || kind === 3 || (kind >= 10000 && kind < 20000)) return `${kind}:${pubkey}`;
    if (kind < 30000 || kind >= 40000) return event.id;
    const d = event.tags.find(tag => tag[0] === 'd');
    return `${kind}:${pubkey}:${(d && d[1]) || ''}`;
  }

  upsert(event) {
    const key = this.key(event), old = this.events.get(key);
    const newer = !old || event.created_at > old.created_at
      || (event.created_at === old.created_at && event.id < old.id);
    if (newer) this.events.set(key, event);
    return { isDuplicate: !newer };
  }

  find(filter) {
    return [...this.events.values()]
      .filter(event => EventUtils.isMatchingFilter(event, filter))
      .sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1))
      .slice(0, filter.limit === undefined ? 1000 : filter.limit);
  }

  deleteByDeletionRequest(request) {
    const ids = request.tags.filter(tag => tag[0] === 'e').map(tag => tag[1]);
    for (const [key, event] of this.events)
      if (ids.includes(event.id) && event.pubkey === request.pubkey) this.events.delete(key);
  }

  destroy() {}
}

const relay = new NostrRelay(new Memory(), {
  hostname: authWanted ? '127.0.0.1' : undefined,
  logLevel: LogLevel.ERROR,
  maxSubscriptionsPerClient: 500,
  filterResultCacheTtl: 0,
  eventHandlingResultCacheTtl: 600000,
});
const validator = new Validator({ maxContentLength: 1048576, maxTagValueLength: 65536 });
const information = { name: 'npm relay', supported_nips: [1, 9, 11, 42] };
const server = http.createServer((request, response) => {
  response.setHeader('content-type', 'application/nostr+json');
  response.end(JSON.stringify(information));
});

function refusal(socket, [verb, first]) {
  if (!authWanted || relay.isAuthorized(socket)) return null;
  const reason = 'auth-required: please AUTH';
  if (verb === 'EVENT') return ['OK', first.id, false, reason];
  return verb === 'REQ' ? ['CLOSED', first, reason] : null;
}

new WebSocketServer({ server }).on('connection', socket => {
  relay.handleConnection(socket);
  socket.on('message', async data => {
    try {
      const message = await validator.validateIncomingMessage(data);
      const no = refusal(socket, message);
      if (no) socket.send(JSON.stringify(no));
      else await relay.handleMessage(socket, message);
    } catch (error) {
      socket.send(JSON.stringify(['NOTICE', String(error.message)]));
    }
  });
  socket.on('close', () => relay.handleDisconnect(socket));
  socket.on('error', () => {});
});
server.listen(Number(port), '127.0.0.1', () => console.log('ready ws://127.0.0.1:' + port));
process.stdin.on('end', () => process.exit(0)).resume();
