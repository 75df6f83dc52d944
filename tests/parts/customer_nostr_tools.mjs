// A customer made of nostr-tools: node customer_nostr_tools.mjs NODE_MODULES RELAY QUESTION
// Prints one JSON line for each event that answers. Authenticates (NIP-42) where it is asked to;
// a relay that acknowledges no AUTH is simply asked again.
import { createRequire } from 'node:module';
const require = createRequire(process.argv[2] + '/');
const { generateSecretKey, getPublicKey, finalizeEvent, verifyEvent } = require('nostr-tools/pure');
const { Relay, useWebSocketImplementation } = require('nostr-tools/relay');
useWebSocketImplementation(require('ws'));
process.on('unhandledRejection', () => {});       // an AUTH that nobody acknowledges
const [url, question] = process.argv.slice(3);
const secret = generateSecretKey();
const relay = await Relay.connect(url);
relay.onauth = async (template) => finalizeEvent(template, secret);
const job = finalizeEvent({
  kind: 5050, created_at: Math.floor(Date.now() / 1000), content: '',
  tags: [['i', question, 'text'], ['output', 'text/plain'], ['param', 'temperature', '0'],
         ['param', 'max_tokens', '40'], ['relays', url]],
}, secret);
const seen = new Set();
let finish;
const done = new Promise((resolve) => { finish = resolve; });
function hear(event) {
  const mine = event.tags.some((tag) => tag[0] === 'e' && tag[1] === job.id);
  if (!mine || seen.has(event.id) || !verifyEvent(event)) return;
  seen.add(event.id);
  console.log(JSON.stringify({ kind: event.kind, content: event.content, tags: event.tags }));
  if (event.kind === 6050) finish();
}
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
for (let tries = 0; tries < 100; tries += 1) {
  try {
    await Promise.race([relay.publish(job), pause(2000).then(() => { throw new Error('late'); })]);
    break;
  } catch {
    await pause(200);
  }
}
while (seen.size === 0) {                          // subscribe until the relay lets us
  const sub = relay.subscribe([{ kinds: [6050, 7000], '#p': [getPublicKey(secret)] }],
                              { onevent: hear });
  await pause(1000);
  if (seen.size === 0) sub.close();
}
await Promise.race([done, pause(60000)]);
process.exit(0);
