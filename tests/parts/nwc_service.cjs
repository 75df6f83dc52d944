// A wallet service of Alby's SDK (NIP-47) in front of one wallet of an LNbits server.
// node nwc_service.cjs NODE_MODULES RELAY LNBITS ADMIN_KEY INVOICE_KEY
// prints `ready nostr+walletconnect://...`, ends with its stdin
const { createRequire } = require('module');
const { randomBytes } = require('crypto');
const [modules, relayUrl, lnbits, adminKey, invoiceKey] = process.argv.slice(2);
const load = createRequire(modules + '/');
const WebSocket = globalThis.WebSocket = globalThis.WebSocket ?? load('ws');
const { NWCWalletService, NWCWalletServiceKeyPair } = load('@getalby/sdk/nwc');

const METHODS = ['get_info', 'get_balance', 'make_invoice', 'pay_invoice', 'lookup_invoice',
  'list_transactions'];
const now = () => Math.floor(Date.now() / 1000);
const seconds = (text) => Math.floor(Date.parse(/Z|[+-]\d\d:/.test(text) ? text : text + 'Z') / 1000);

async function api(method, path, body) {
  const answer = await fetch(lnbits + path, {
    method, headers: { 'X-Api-Key': adminKey, 'content-type': 'application/json' },
    body: body && JSON.stringify(body) });
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.detail), { status: answer.status });
  return value;
}

function transaction(record) {
  const states = { success: 'settled', pending: 'pending', failed: 'failed' };
  const incoming = record.amount > 0;
  const expired = incoming && record.status !== 'success' && seconds(record.expiry) <= now();
  return { type: incoming ? 'incoming' : 'outgoing',
    state: expired ? 'expired' : states[record.status], invoice: record.bolt11,
    description: record.memo ?? '', description_hash: '', preimage: record.preimage ?? '',
    payment_hash: record.payment_hash, amount: Math.abs(record.amount),
    fees_paid: Math.abs(record.fee), created_at: seconds(record.time),
    expires_at: record.expiry ? seconds(record.expiry) : 0,
    settled_at: record.status === 'success' ? seconds(record.updated_at) : 0 };
}

// What the SDK wants of a method: {result} or {error}.
const answering = (work) => async (request) => {
  try {
    return { result: await work(request ?? {}), error: undefined };
  } catch (err) {
    const code = err.status === 404 ? 'NOT_FOUND'
      : /nsufficient/.test(err.message) ? 'INSUFFICIENT_BALANCE' : 'PAYMENT_FAILED';
    return { result: undefined, error: { code, message: err.message } };
  }
};

const handlers = {
  getInfo: answering(async () => ({ alias: 'lnbits', methods: METHODS, network: 'mainnet',
    notifications: ['payment_received'] })),
  getBalance: answering(async () => ({ balance: (await api('GET', '/api/v1/wallet')).balance })),
  makeInvoice: answering(async ({ amount, description, expiry }) => transaction(
    await api('POST', '/api/v1/payments', { out: false, amount: Math.floor(amount / 1000),
      memo: description ?? '', expiry: expiry ?? 3600 }))),
  payInvoice: answering(async ({ invoice }) => {
    const paid = await api('POST', '/api/v1/payments', { out: true, bolt11: invoice });
    // LNbits answers 201 with the payee's own record where that one has expired.
    if (paid.status !== 'success' || paid.amount > 0) throw new Error('payment ' + paid.status);
    return { preimage: paid.preimage, fees_paid: Math.abs(paid.fee) };
  }),
  lookupInvoice: answering(async ({ payment_hash: hash }) => transaction(
    (await api('GET', '/api/v1/payments/' + hash)).details)),
  listTransactions: answering(async ({ from = 0, limit = 20, offset = 0 }) => {
    const records = await api('GET', `/api/v1/payments?limit=${limit}&offset=${offset}`
      + '&status=success&sortby=time&direction=desc');
    return { transactions: records.map(transaction).filter((one) => one.created_at >= from) };
  }),
};

async function main() {
  const walletSecret = randomBytes(32).toString('hex');
  const clientSecret = randomBytes(32).toString('hex');
  const { getPublicKey } = load('nostr-tools/pure');
  const publicKey = (secret) => getPublicKey(Uint8Array.from(Buffer.from(secret, 'hex')));
  const pair = new NWCWalletServiceKeyPair(walletSecret, publicKey(clientSecret));
  const service = new NWCWalletService({ relayUrl });
  await service.publishWalletServiceInfoEvent(walletSecret, METHODS, ['payment_received']);
  await service.subscribe(pair, handlers);
  const push = new WebSocket(lnbits.replace('http', 'ws') + '/api/v1/ws/' + invoiceKey);
  push.onmessage = async ({ data }) => {
    const { payment } = JSON.parse(data);
    if (!payment || payment.amount < 0) return;
    const content = await service.encrypt(pair, JSON.stringify({
      notification_type: 'payment_received', notification: transaction(payment) }), 'nip44_v2');
    await service.relay.publish(await service.signEvent({ kind: 23197, created_at: now(),
      tags: [['p', pair.clientPubkey]], content }, walletSecret));
  };
  push.onopen = () => console.log(`ready nostr+walletconnect://${publicKey(walletSecret)}`
    + `?relay=${encodeURIComponent(relayUrl)}&secret=${clientSecret}`);
}

process.stdin.on('end', () => process.exit(0)).resume();
main();
