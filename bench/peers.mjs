/**
 * Libraries of idempotency, each behind one call: `attempt({ tenant, path, key, body }, handler)`.
 * Invariant: every library is used as its documents say, on a store in memory; where a better setting is documented it has a row of its own.
 * What comes back: { type: 'answered', value }, { type: 'refused', why } or { type: 'threw' }.
 *
 * A `store` outlives processes: `process(store)` is one process on it, and `freeze()` stops that process's timers, as a stall or a crash does.
 */
import { Idempotency } from '@node-idempotency/core'
import { MemoryStorageAdapter } from '@node-idempotency/storage-adapter-memory'
import { CachePersistenceLayer } from '@aws-lambda-powertools/idempotency/cache'
import { IdempotencyConfig, makeIdempotent } from '@aws-lambda-powertools/idempotency'
import { createRequire } from 'node:module'
import { hapax } from './harness.mjs'

const require = createRequire(import.meta.url)
const { IdempotencyService } = require('express-idempotency/dist/services/idempotencyService.js')

const answered = (value) => ({ type: 'answered', value })
const refused = (why) => ({ type: 'refused', why })
const threw = { type: 'threw' }

/** Counts the calls of the named methods on anything. */
function counting(target, methods, calls) {
  const counted = Object.create(target)
  for (const method of methods) {
    counted[method] = (...args) => {
      calls.count += 1
      return target[method](...args)
    }
  }
  return counted
}

const { memory } = await hapax('core/index.js')
const { idempotency } = await hapax('patterns/idempotency/index.js')

const ours = {
  name: 'hapax',
  store: () => ({ kv: memory({ maxBytes: 2 ** 31 }), calls: { count: 0 } }),
  process({ kv, calls }, { leaseMs, retentionMs, isCounted = false }) {
    let isFrozen = false
    const run = idempotency({
      kv: isCounted ? counting(kv, ['create', 'get', 'getMany', 'update', 'set', 'destroy'], calls) : kv,
      name: 'payments',
      lease: leaseMs,
      retention: retentionMs,
      timers: {
        setTimeout: (fire, ms) => setTimeout(() => isFrozen || fire(), ms),
        clearTimeout: (timer) => clearTimeout(timer),
      },
    })
    return {
      freeze: () => (isFrozen = true),
      async attempt({ tenant, path, key, body }, handler) {
        try {
          const result = await run.run({ scope: tenant, operation: `POST ${path}`, key, input: body }, handler)
          return result.ok ? answered(result.value) : refused(result.refusal)
        } catch {
          return threw
        }
      },
    }
  },
}

const nodeIdempotency = {
  name: 'node-idempotency',
  store: () => ({ storage: new MemoryStorageAdapter(), calls: { count: 0 } }),
  process({ storage, calls }, { retentionMs, isCounted = false }) {
    const core = new Idempotency(isCounted ? counting(storage, ['setIfNotExists', 'set', 'get'], calls) : storage, {
      cacheTTLMS: retentionMs,
    })
    return {
      freeze: () => {},
      async attempt({ tenant, path, key, body }, handler) {
        const request = { headers: { 'idempotency-key': key, authorization: tenant }, path, method: 'POST', body }
        let stored
        try {
          stored = await core.onRequest(request)
        } catch (error) {
          return refused(error.message)
        }
        if (stored !== undefined) return stored.error === undefined ? answered(stored.body) : threw
        try {
          const value = await handler()
          await core.onResponse(request, { body: value })
          return answered(value)
        } catch (error) {
          await core.onResponse(request, { error: String(error) })
          return threw
        }
      },
    }
  },
}

/** Its own adapter in memory searches a list; a Map is what a store would be. */
class MapAdapter {
  resources = new Map()
  async findByIdempotencyKey(key) {
    return this.resources.get(key) ?? null
  }
  async create(resource) {
    if (this.resources.has(resource.idempotencyKey)) throw new Error('Duplicate')
    this.resources.set(resource.idempotencyKey, resource)
  }
  async update(resource) {
    this.resources.set(resource.idempotencyKey, resource)
  }
  async delete(key) {
    this.resources.delete(key)
  }
}

/** As much of Express as the middleware touches. */
class FakeResponse {
  statusCode = 200
  #headers = {}
  #sent
  constructor(sent) {
    this.#sent = sent
  }
  setHeader(name, value) {
    this.#headers[name] = value
  }
  getHeaders() {
    return this.#headers
  }
  status(code) {
    this.statusCode = code
    return this
  }
  send(body) {
    this.#sent(body)
    return this
  }
}

const expressIdempotency = {
  name: 'express-idempotency',
  store: () => ({ adapter: new MapAdapter(), calls: { count: 0 } }),
  process({ adapter, calls }, { isCounted = false }) {
    const service = new IdempotencyService({
      dataAdapter: isCounted ? counting(adapter, ['findByIdempotencyKey', 'create', 'update', 'delete'], calls) : adapter,
    })
    return {
      freeze: () => {},
      attempt: ({ tenant, path, key, body }, handler) =>
        new Promise((resolve) => {
          const headers = { 'idempotency-key': key, authorization: tenant }
          const request = { method: 'POST', url: path, query: {}, headers, body, get: (name) => headers[name.toLowerCase()] }
          const response = new FakeResponse((text) => resolve(response.statusCode < 400 ? answered(JSON.parse(text)) : threw))
          const next = (error) => {
            if (error !== undefined) return resolve(refused(error.message))
            if (service.isHit(request)) return undefined
            return handler().then(
              (value) => response.setHeader('content-type', 'application/json') ?? response.send(JSON.stringify(value)),
              () => response.status(500).send('{}'),
            )
          }
          service.provideMiddlewareFunction(request, response, next).catch((error) => resolve(refused(error.message)))
        }),
    }
  },
}

/** What Powertools asks of a cache client: GET, SET with NX and EX, DEL. */
class MapCache {
  #items = new Map()
  #live(name) {
    const item = this.#items.get(name)
    return item === undefined || item.until <= Date.now() ? null : item.value
  }
  async get(name) {
    return this.#live(name)
  }
  async set(name, value, { EX, NX } = {}) {
    if (NX && this.#live(name) !== null) return null
    this.#items.set(name, { value, until: EX === undefined ? Infinity : Date.now() + EX * 1_000 })
    return 'OK'
  }
  async del(names) {
    for (const name of names) this.#items.delete(name)
    return names.length
  }
}

/** The Lambda context says how long the invocation may take, which is its lease; without one it warns at each call. Retention counts in whole seconds. */
const powertools = ({ name, isValidated }) => ({
  name,
  store: () => ({ client: new MapCache(), calls: { count: 0 } }),
  process({ client, calls }, { leaseMs, retentionMs, isCounted = false }) {
    const counted = isCounted ? counting(client, ['get', 'set', 'del'], calls) : client
    const context = { getRemainingTimeInMillis: () => leaseMs }
    const routes = new Map()
    const routeOf = (path) => {
      if (!routes.has(path)) {
        const config = new IdempotencyConfig({
          eventKeyJmesPath: '[tenant, key]',
          throwOnNoIdempotencyKey: true,
          expiresAfterSeconds: Math.max(1, Math.ceil(retentionMs / 1_000)),
          ...(isValidated ? { payloadValidationJmesPath: 'body' } : {}),
        })
        const persistenceStore = new CachePersistenceLayer({ client: counted })
        routes.set(
          path,
          makeIdempotent((event, _context, handler) => handler(), { persistenceStore, config, keyPrefix: path }),
        )
      }
      return routes.get(path)
    }
    return {
      freeze: () => {},
      async attempt({ tenant, path, key, body }, handler) {
        let isOwnFault = false
        const guarded = async () => {
          try {
            return await handler()
          } catch (error) {
            isOwnFault = true
            throw error
          }
        }
        try {
          return answered(await routeOf(path)({ tenant, key, body }, context, guarded))
        } catch (error) {
          return isOwnFault ? threw : refused(error.name)
        }
      },
    }
  },
})

/** `isTimed`: settings beyond the first of a library are shown in the table of answers alone. */
export const peers = [
  { ...ours, isTimed: true },
  { ...nodeIdempotency, isTimed: true },
  { ...expressIdempotency, isTimed: true },
  { ...powertools({ name: 'Powertools', isValidated: false }), isTimed: true },
  { ...powertools({ name: 'Powertools, validation', isValidated: true }), isTimed: false },
]
