/**
 * Encryption at rest: proxies seal values before they leave for storage servers, which hold no key.
 * Invariant: a nonce is used once; what was sealed for one key of one namespace opens for no other; every byte that a client gave is sealed,
 * its marks of compression included.
 * Why here and not on the disk: one sealing serves all replicas, and a stolen disk, a storage server and the network between see the same nothing.
 * Source: NIST SP 800-38D (GCM, 8.2.2 random nonces: at most 2^32 under one key), juno-reference 1.6 (type 2 and its header).
 *
 *   [ type 2, 1 ][ key version, 4 ][ nonce, 12 ][ sealed payload ][ tag, 16 ]     additional data: the name of the key in the cluster
 */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, randomFillSync, type KeyObject } from 'node:crypto'
import { KvError, invalid } from '../../core/kv/errors.ts'

/** JunoDB's number for a payload that its proxy encrypted. */
export const sealedType = 2
const versionBytes = 4
const nonceBytes = 12
const tagBytes = 16
const headBytes = 1 + versionBytes + nonceBytes
/** What sealing adds to a payload. */
export const sealBytes = headBytes + tagBytes
/** Of AES-256. */
const keyBytes = 32
const noncePool = 1_024

/** A key of the ring and what it is called in every value that it sealed. */
export interface RingKey {
  /** 1 to 2^32 - 1. */
  readonly version: number
  readonly key: KeyObject
  /** Tells two keys with one version apart, and nothing about either. */
  readonly check: string
  /** It seals nothing yet: proxies that have not read the new file could not open it. */
  readonly opensOnly?: boolean
}

/** All keys open, by rising version. */
export type KeyRing = readonly RingKey[]

/** The one that seals: of those that may, the one with the highest version. */
export const sealingKey = (ring: KeyRing): RingKey | undefined => ring.findLast(({ opensOnly }) => opensOnly !== true)

/**
 * Reads the text of a key file: a line a key, its version and 64 hexadecimal digits, and `opens` after them as long as it seals nothing; `#` begins a comment.
 * @throws KvError INVALID_ARGUMENT, which never repeats what stands in the file.
 */
export function parseKeyRing(text: string): KeyRing {
  const keys: RingKey[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const bare = line.replace(/#.*/, '').trim()
    if (bare === '') continue
    const match = /^(\d{1,10})\s+([0-9a-fA-F]{64})(\s+opens)?$/.exec(bare)
    const version = Number(match?.[1])
    if (match === null || version < 1 || version > 0xffff_ffff)
      invalid(`line ${index + 1} of the key file is not a version and 64 hexadecimal digits`, 'hapax cert key makes such a line')
    if (keys.some((one) => one.version === version)) invalid(`line ${index + 1} of the key file names version ${version} a second time`)
    keys.push({ ...ringKey(version, Buffer.from(match[2] as string, 'hex')), opensOnly: match[3] !== undefined })
  }
  if (keys.length === 0) invalid('the key file has no key', 'hapax cert key makes one')
  if (sealingKey(keys) === undefined) invalid('all keys of the key file only open', 'the key that seals has no `opens` behind it')
  return keys.toSorted((a, b) => a.version - b.version)
}

export function ringKey(version: number, bytes: Uint8Array): RingKey {
  if (bytes.length !== keyBytes) invalid(`a key has ${keyBytes} bytes`)
  const key = createSecretKey(bytes)
  return { version, key, check: createHmac('sha256', key).update('hapax key check').digest('hex').slice(0, 16) }
}

/** A line for the key file, with a key that nobody else has. */
export const newKeyLine = (version: number, opensOnly = false): string =>
  `${version} ${randomFillSync(Buffer.alloc(keyBytes)).toString('hex')}${opensOnly ? ' opens' : ''}`

export class Sealer {
  #ring: ReadonlyMap<number, RingKey> = new Map()
  #current: RingKey
  readonly #nonces = Buffer.alloc(nonceBytes * noncePool)
  #nextNonce = nonceBytes * noncePool
  #sealed = 0

  constructor(ring: KeyRing) {
    this.#current = this.replace(ring)
  }

  /** Values sealed by this process under its present key. Above 2^32 in all processes together the key has to be exchanged. */
  get sealed(): number {
    return this.#sealed
  }
  /** The version that seals. */
  get version(): number {
    return this.#current.version
  }

  /** Takes another ring, at once. */
  replace(ring: KeyRing): RingKey {
    const current = sealingKey(ring)
    if (current === undefined) return invalid('a ring without a key seals nothing')
    this.#ring = new Map(ring.map((one) => [one.version, one]))
    if (this.#current?.check !== current.check) this.#sealed = 0
    this.#current = current
    return current
  }

  /** @param name of the key in the cluster (core/record/register-key.ts) */
  seal(name: string, payload: Uint8Array): Buffer {
    this.#sealed++
    const { version, key } = this.#current
    const out = Buffer.allocUnsafeSlow(payload.length + sealBytes)
    out[0] = sealedType
    out.writeUInt32BE(version, 1)
    this.#drawNonce(out)
    const cipher = createCipheriv('aes-256-gcm', key, out.subarray(1 + versionBytes, headBytes))
    cipher.setAAD(Buffer.from(name, 'latin1'))
    out.set(cipher.update(payload), headBytes)
    cipher.final()
    out.set(cipher.getAuthTag(), headBytes + payload.length)
    return out
  }

  /** @throws KvError DAMAGED: other bytes, another key's value, or sealed under a key that is not in the ring. */
  open(name: string, sealed: Uint8Array): Buffer {
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength)
    if (bytes.length < sealBytes || bytes[0] !== sealedType) throw damaged('is too short to be a sealed one')
    const version = bytes.readUInt32BE(1)
    const found = this.#ring.get(version)
    if (found === undefined)
      throw new KvError('DAMAGED', {
        message: `a value was sealed under key version ${version}, which is not in the ring of this proxy`,
        hint: 'add the line of that version to the key file again: the value is whole',
      })
    const end = bytes.length - tagBytes
    const decipher = createDecipheriv('aes-256-gcm', found.key, bytes.subarray(1 + versionBytes, headBytes), { authTagLength: tagBytes })
    decipher.setAAD(Buffer.from(name, 'latin1'))
    decipher.setAuthTag(bytes.subarray(end))
    const payload = decipher.update(bytes.subarray(headBytes, end))
    try {
      decipher.final()
    } catch (cause) {
      throw damaged('is not what was sealed for this key', cause)
    }
    return payload
  }

  #drawNonce(out: Buffer): void {
    if (this.#nextNonce === this.#nonces.length) {
      randomFillSync(this.#nonces)
      this.#nextNonce = 0
    }
    this.#nonces.copy(out, 1 + versionBytes, this.#nextNonce, this.#nextNonce + nonceBytes)
    // Not even by a mistake further down may one be drawn twice.
    this.#nonces.fill(0, this.#nextNonce, this.#nextNonce + nonceBytes)
    this.#nextNonce += nonceBytes
  }
}

const damaged = (what: string, cause?: unknown): KvError =>
  new KvError('DAMAGED', {
    message: `a sealed value ${what}`,
    hint: 'somebody changed it, or put the value of another key in its place',
    ...(cause === undefined ? {} : { cause }),
  })
