// What an app does that was written with @atproto/xrpc and the lexicons that
// the node serves: it creates, writes, lists in pages, fetches and is refused.
import assert from 'node:assert/strict'
import { XrpcClient, XRPCError } from '@atproto/xrpc'

const [base, token] = process.argv.slice(2)
const names = (await (await fetch(`${base}/lexicons/`)).json()).lexicons
const docs = await Promise.all(names.map(async (n) => (await fetch(`${base}/lexicons/${n}`)).json()))
const api = new XrpcClient({ service: base, headers: { authorization: `Bearer ${token}` } }, docs)
const simple = 'com.atproto.simplespace.'
const spaces = 'com.atproto.space.'
const collection = 'com.example.js.note'

const me = (await api.call('dev.kith.server.getSession')).data
assert.equal(me.owner, true)

const { uri: space } = (await api.call(simple + 'createSpace', {}, {
  type: 'com.example.js',
  policy: { $type: simple + 'defs#memberListPolicy' },
  appAccess: { $type: simple + 'defs#open' },
})).data
assert.match(space, /^at:\/\/did:.*\/space\/com\.example\.js\/[2-7a-z]{13}$/)
const repo = me.did

const first = (await api.call(spaces + 'createRecord', {}, { space, repo, collection, record: { text: 'from JavaScript' } })).data
assert.equal(first.validationStatus, 'unknown')
const writes = [...Array(25).keys()].map((n) => ({ $type: spaces + 'applyWrites#create', collection, rkey: `n${n}`, value: { n } }))
const batch = (await api.call(spaces + 'applyWrites', {}, { space, repo, writes })).data
assert.equal(batch.results.length, 25)

const seen = []
let cursor
do {
  const page = (await api.call(spaces + 'listRecords', { space, repo, limit: 10, cursor })).data
  seen.push(...page.records.map((r) => r.rkey))
  cursor = page.cursor
} while (cursor)
assert.equal(seen.length, 26)
assert.deepEqual(seen, [...seen].sort().reverse())

const rkey = first.uri.split('/').pop()
const record = (await api.call(spaces + 'getRecord', { space, repo, collection, rkey })).data
assert.equal(record.value.text, 'from JavaScript')
assert.equal(record.cid, first.cid)

const ops = (await api.call(spaces + 'listRepoOps', { space, repo, limit: 1000 })).data
assert.equal(ops.ops.length, 26)
const { commit } = (await api.call(spaces + 'getLatestCommit', { space, repo })).data
assert.equal(commit.rev, ops.commit.rev)
assert.equal(commit.hash.length, 32)
const car = (await api.call(spaces + 'getRepo', { space, repo })).data
assert.ok(car.length > 26 * 36)

const refused = async (promise, status, error) => {
  const e = await promise.then(() => assert.fail(`${error} expected`), (e) => e)
  assert.ok(e instanceof XRPCError, String(e))
  assert.deepEqual([e.status, e.error], [status, error])
}
await refused(api.call(spaces + 'getRecord', { space, repo, collection, rkey: 'none' }), 400, 'RecordNotFound')
await refused(api.call(spaces + 'createRecord', {}, { space, repo, collection, rkey: 'n1', record: {} }), 400, 'RecordAlreadyExists')
await refused(api.call(simple + 'getSpace', { space: space + 'x' }), 400, 'SpaceNotFound')

const status = (await api.call('dev.kith.node.status')).data
assert.ok(status.spaces.some((s) => s.uri.endsWith(space.split('/').pop())))
await api.call(simple + 'deleteSpace', {}, { space })
await refused(api.call(spaces + 'listRecords', { space, repo }), 400, 'SpaceDeleted')
console.log('ok')
