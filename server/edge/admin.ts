/**
 * The window of a process: whether it lives, whether it is ready, what it counts, what it is. A port of its own, on this machine alone.
 * Invariant: nothing here changes anything; a check that does not hold says why; whether it lives asks nobody else, so that a stall of the
 * map's source restarts nothing.
 * Source: docs, reliability, "Health".
 */
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { addressText, needLoopback, type Address } from '../../core/net/address.ts'
import type { Meter } from './meter.ts'

/** Undefined: it holds. Otherwise why it does not. */
export type Check = () => string | undefined

export interface AdminOptions {
  /** On loopback. */
  readonly listen: Address
  readonly meter: Meter
  readonly live: Readonly<Record<string, Check>>
  readonly ready: Readonly<Record<string, Check>>
  /** What `/status` shows. */
  readonly status: () => object
}

const connectionsMax = 64
const headerBytesMax = 8_192
const timeoutMs = 5_000

export class AdminServer implements AsyncDisposable {
  readonly #server: Server
  readonly #options: AdminOptions

  /** @throws KvError INVALID_ARGUMENT for an address that others can reach; the error of the system when it cannot be had */
  static async open(options: AdminOptions): Promise<AdminServer> {
    needLoopback(options.listen)
    const admin = new AdminServer(options)
    await new Promise<void>((resolve, reject) => {
      admin.#server.once('error', reject)
      const { listen } = options
      // Exclusive: processes that share the port of their clients have a window each.
      const exclusive = true
      admin.#server.listen(
        'path' in listen ? { path: listen.path, exclusive } : { host: listen.host, port: listen.port, exclusive },
        resolve,
      )
    })
    return admin
  }

  private constructor(options: AdminOptions) {
    this.#options = options
    this.#server = createServer(
      { maxHeaderSize: headerBytesMax, requestTimeout: timeoutMs, headersTimeout: timeoutMs },
      (request, response) => {
        request.resume() // a body says nothing
        void this.#answer(request.method ?? '', request.url ?? '', response)
      },
    )
    this.#server.maxConnections = connectionsMax
    this.#server.keepAliveTimeout = timeoutMs
  }

  get address(): string {
    const { listen } = this.#options
    if ('path' in listen) return addressText(listen)
    const { address, port } = this.#server.address() as AddressInfo
    return addressText({ host: address, port })
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #answer(method: string, url: string, response: ServerResponse): Promise<void> {
    const end = (status: number, type: string, body: string): void => {
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store', ...(status === 405 ? { allow: 'GET, HEAD' } : {}) })
      response.end(method === 'HEAD' ? undefined : body)
    }
    const plain = 'text/plain; charset=utf-8'
    if (method !== 'GET' && method !== 'HEAD') return end(405, plain, 'nothing can be changed here\n')
    const { live, ready, meter, status } = this.#options
    switch (url.split('?', 1)[0]) {
      case '/livez':
        return end(...checked(live))
      case '/readyz':
        return end(...checked({ ...live, ...ready }))
      case '/status':
        return end(200, 'application/json', `${JSON.stringify(status())}\n`)
      case '/metrics':
        try {
          return end(200, 'text/plain; version=0.0.4; charset=utf-8', await meter.text())
        } catch (error) {
          return end(500, plain, `${error instanceof Error ? error.message : String(error)}\n`)
        }
      default:
        return end(404, plain, 'there are /livez /readyz /metrics /status\n')
    }
  }
}

function checked(checks: Readonly<Record<string, Check>>): readonly [number, string, string] {
  const lines = Object.entries(checks).map(([name, check]) => [name, check()] as const)
  const body = lines.map(([name, why]) => (why === undefined ? `ok    ${name}\n` : `FAIL  ${name}: ${why}\n`)).join('')
  return [lines.every(([, why]) => why === undefined) ? 200 : 503, 'text/plain; charset=utf-8', body]
}
