// A customer made of nostr-tools: node customer_nostr_tools.mjs NODE_MODULES RELAY QUESTION
// Prints one JSON line for each event that answers; ends with the result.
import { createRequire } from 'node:module';
const require = createRequire(process.argv[2] + '/');
const { generateSecretKey, getPublicKey, finalizeEvent, verifyEvent } = require('nostr-tools/pure');
const { Relay, useWebSocketImplementation } = require('nostr-tools/relay');
const WebSocket = require('ws');
useWebSocketImplementation(WebSocket);
const [url, question] = process.argv.slice(3);
const secret = generateSecretKey();
const relay = await Relay.connect(url);
const sign = async (template) => finalizeEvent(template, secret);
relay._onauth = (challenge) => relay.auth(sign);
const job = finalizeEvent({
  kind: 5050, created_at: Math.floor(Date.now() / 1000), content: '',
  tags: [['i', question, 'text'], ['output', 'text/plain'], ['param', 'temperature', '0'],
         ['param', 'max_tokens', '40'], ['relays', url]],
}, secret);
const done = new Promise((resolve) => relay.subscribe(
  [{ kinds: [6050, 7000], '#p': [getPublicKey(secret)] }], {
    onevent(event) {
      const mine = event.tags.some((tag) => tag[0] === 'e' && tag[1] === job.id);
      if (!mine || !verifyEvent(event)) return;
      console.log(JSON.stringify({ kind: event.kind, content: event.content, tags: event.tags }));
      if (event.kind === 6050) resolve();
    },
  }));
await relay.publish(job);
await Promise.race([done, new Promise((resolve) => setTimeout(resolve, 60000))]);
process.exit(0);
