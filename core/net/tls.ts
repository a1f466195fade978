/**
 * Certificates of this process: read, judged, and exchanged while connections live.
 * Invariant: TLS 1.3 with a verified certificate on both sides, or no connection; what is in use is always a pair that fits, of one moment.
 * Why polling and no watcher: a volume that is swapped by a link (Kubernetes) tells a watcher nothing, and a look at three small files costs nothing.
 */
import { createHash, createPrivateKey, randomBytes, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import type { Clock, EpochMs } from '../base/types.ts'
import { epochMs } from '../base/types.ts'
import { KvError } from '../kv/errors.ts'
import { identityOf, type Identity } from './identity.ts'
import { systemTicker, type Ticker } from './ticker.ts'

/** Paths of PEM files. `ca` may hold several certificates: both the old and the new one while they are exchanged. */
export interface TlsFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

/** One state of the files. */
export interface TlsState {
  readonly identity: Identity
  /** When this process's own certificate ends. */
  readonly expiresAt: EpochMs
  /** What a server and a client are made with. */
  readonly context: SecureContextOptions
  /** The same, made once for all connections that are dialled. */
  readonly secureContext: SecureContext
  /** Sessions of another state are never resumed: they would outlive the certificates that they rest on. */
  readonly sessionIdContext: string
}

export interface CredentialsOptions {
  /** How often the files are looked at, in milliseconds. Default 5,000. */
  readonly pollMs?: number
  readonly ticker?: Ticker
  readonly clock?: Clock
  /** The files changed and do not fit, or cannot be read. What was in use stays in use. Called once for each problem, not at each look. */
  readonly onProblem?: (error: KvError) => void
}

const pollMsDefault = 5_000
/** A bundle of certificates, or a key, is smaller. */
const fileBytesMax = 1_048_576

/** The certificates of a process, live. */
export class Credentials implements AsyncDisposable {
  readonly #files: TlsFiles
  readonly #clock: Clock
  readonly #ticker: Ticker
  readonly #pollMs: number
  readonly #onProblem: (error: KvError) => void
  readonly #listeners = new Set<() => void>()
  #state: TlsState
  /** The hash of the files that are in use. */
  #inUse: string
  /** The problem that was told last. */
  #told: string | undefined
  #cancel: (() => void) | undefined
  #reading: Promise<boolean> | undefined
  #isClosed = false

  /**
   * Reads the files, and looks at them again from time to time until it is closed.
   * @throws KvError INVALID_ARGUMENT when a file cannot be read, has ended, does not fit, or names no role.
   */
  static async open(files: TlsFiles, options: CredentialsOptions = {}): Promise<Credentials> {
    const { clock = { now: () => epochMs(Date.now()) } } = options
    const pems = await read(files)
    return new Credentials(files, judge(pems, files, clock.now()), hashOf(pems), { ...options, clock })
  }

  private constructor(files: TlsFiles, state: TlsState, inUse: string, options: CredentialsOptions & { readonly clock: Clock }) {
    this.#files = files
    this.#state = state
    this.#inUse = inUse
    this.#clock = options.clock
    this.#ticker = options.ticker ?? systemTicker
    this.#pollMs = options.pollMs ?? pollMsDefault
    this.#onProblem = options.onProblem ?? (() => undefined)
    this.#wait()
  }

  get state(): TlsState {
    return this.#state
  }

  /** Calls `act` after each exchange. Returns what ends that. */
  onChange(act: () => void): () => void {
    this.#listeners.add(act)
    return () => this.#listeners.delete(act)
  }

  /** Looks at the files now. @returns whether they are exchanged. Never rejects: see `onProblem`. */
  reload(): Promise<boolean> {
    this.#reading ??= this.#reload().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #reload(): Promise<boolean> {
    try {
      const pems = await read(this.#files)
      const hash = hashOf(pems)
      if (this.#isClosed || hash === this.#inUse) return false
      this.#state = judge(pems, this.#files, this.#clock.now())
      this.#inUse = hash
      this.#told = undefined
    } catch (error) {
      const problem = error instanceof KvError ? error : unreadable('the certificates cannot be read', error)
      // A certificate whose key is not exchanged yet is whole at the next look; what lasts is told once.
      if (!this.#isClosed && problem.message !== this.#told) this.#onProblem(problem)
      this.#told = problem.message
      return false
    }
    for (const act of this.#listeners) act()
    return true
  }

  #wait(): void {
    if (this.#isClosed) return
    this.#cancel = this.#ticker.after(this.#pollMs, () => {
      void this.reload().then(() => this.#wait())
    })
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#cancel?.()
    this.#listeners.clear()
    await this.#reading
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

async function read(files: TlsFiles): Promise<TlsFiles> {
  const [ca, cert, key] = await Promise.all([files.ca, files.cert, files.key].map(readPem))
  return { ca: ca as string, cert: cert as string, key: key as string }
}

async function readPem(path: string): Promise<string> {
  // Somebody took the path for the content: it may be a key, and must not be repeated.
  if (path.includes('-----BEGIN')) throw unreadable('a PEM stands where the path of its file is wanted')
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw unreadable(`${path} cannot be read`, error)
  }
  if (text.length > fileBytesMax) throw unreadable(`${path} is too large for a PEM file`)
  return text
}

/** Takes the files for what they say, or refuses them. Names paths, never contents. */
function judge(pems: TlsFiles, files: TlsFiles, now: EpochMs): TlsState {
  const authorities = certificatesIn(pems.ca, files.ca)
  const [own] = certificatesIn(pems.cert, files.cert)
  if (own === undefined || authorities.length === 0) throw unreadable(`${own ? files.ca : files.cert} holds no certificate`)
  for (const authority of authorities) if (!authority.ca) throw unreadable(`${files.ca} holds a certificate that is no authority`)
  let isPair: boolean
  try {
    isPair = own.checkPrivateKey(createPrivateKey(pems.key))
  } catch (error) {
    throw unreadable(`${files.key} holds no private key that can be read`, error)
  }
  if (!isPair) throw unreadable(`the key in ${files.key} does not belong to the certificate in ${files.cert}`)
  const expiresAt = endOf(own)
  if (expiresAt <= now) throw unreadable(`the certificate in ${files.cert} ended at ${new Date(expiresAt).toISOString()}`)
  const identity = identityOf(own.subjectAltName)
  if (identity === undefined) throw unreadable(`the certificate in ${files.cert} names no role of a cluster`)
  // As they were read here: files that were joined without an end of line between them are one certificate to OpenSSL.
  const ca = authorities.map(String).join('')
  const context: SecureContextOptions = { ...pems, ca, minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' }
  return {
    identity,
    expiresAt,
    context,
    secureContext: createSecureContext(context),
    sessionIdContext: randomBytes(16).toString('hex'),
  }
}

function certificatesIn(pem: string, path: string): X509Certificate[] {
  try {
    return (pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map((each) => new X509Certificate(each))
  } catch (error) {
    throw unreadable(`${path} holds a certificate that cannot be read`, error)
  }
}

/** When a certificate ends. */
export const endOf = (certificate: X509Certificate): EpochMs => epochMs(Date.parse(certificate.validTo))

const hashOf = ({ ca, cert, key }: TlsFiles): string =>
  createHash('sha256')
    .update(JSON.stringify([ca, cert, key]))
    .digest('hex')

const unreadable = (message: string, cause?: unknown): KvError =>
  new KvError('INVALID_ARGUMENT', {
    message,
    hint: 'hapax cert init makes an authority, hapax cert issue a certificate and its key; both need the role of their owner',
    ...(cause === undefined ? {} : { cause }),
  })
