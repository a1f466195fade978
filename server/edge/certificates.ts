/**
 * Makes the authority of a cluster and the certificates of its processes and clients (`hapax cert init`, `hapax cert issue`).
 * Invariant: a certificate names one role; a client's cannot stand for a server; a key is written for its owner alone, and nothing is overwritten.
 * Why the makers take `now` and touch no disk: what a certificate says is decided in one place, and where it lies is another matter.
 */
import { randomBytes, X509Certificate } from 'node:crypto'
import { mkdir, open, readFile, rm } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { epochMs, type EpochMs } from '../../core/base/types.ts'
import { KvError, invalid } from '../../core/kv/errors.ts'
import { identityUri, type Identity } from '../../core/net/identity.ts'

/** A certificate and its key, both as PEM text. */
export interface Pair {
  readonly cert: string
  readonly key: string
}

export interface Issue extends Identity {
  /** Host names and IP addresses under which a server is reached. A server needs one; a client has none. */
  readonly hosts: readonly string[]
}

const dayMs = 86_400_000
/** Ten years: whoever loses the key of the authority makes a new one long before. */
export const authorityLifeMs = 3_650 * dayMs
/** Short enough that its exchange is a habit; processes take new files without a restart. */
export const certificateLifeMs = 90 * dayMs
/** A clock that is behind by this much still takes a certificate that was made just now. */
const backdateMs = 3_600_000

/** Loaded when it is needed: it takes a quarter of a second, which no other command should wait for. */
const generator = async () => (await import('selfsigned')).generate

/**
 * EC P-256, ten years. It may sign certificates of processes and no further authorities.
 * Why its name has a random part: an old and a new one are trusted together while they are exchanged, and a certificate names its authority. Of two
 * of one name the verifier takes the first and finds that the signature does not fit.
 */
export async function makeAuthority(cluster: string, now: EpochMs): Promise<Pair> {
  // Whether the name can stand in an identity is asked once, here.
  identityUri({ cluster, role: 'client', name: 'x' })
  const generate = await generator()
  const name = [
    { name: 'commonName', value: `${cluster} authority` },
    { shortName: 'OU', value: randomBytes(8).toString('hex') },
  ]
  const made = await generate(name, {
    ...common(now, epochMs(now + authorityLifeMs)),
    extensions: [
      { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  })
  return pairOf(made)
}

/**
 * EC P-256, 90 days, or as long as the authority lasts.
 * @throws KvError INVALID_ARGUMENT for names that cannot be, and for an authority whose key does not fit, or that has ended.
 */
export async function issueCertificate(authority: Pair, { hosts, ...identity }: Issue, now: EpochMs): Promise<Pair> {
  const uri = identityUri(identity)
  const isServer = identity.role === 'proxy' || identity.role === 'storage'
  if (isServer && hosts.length === 0)
    invalid(`a ${identity.role} needs a host name or an IP address`, 'say the name by which others reach it')
  if (!isServer && hosts.length > 0) invalid(`a ${identity.role} is reached under no host name`, 'leave the hosts out')
  const endsAt = epochMs(Math.min(now + certificateLifeMs, endOfAuthority(authority, now)))
  const generate = await generator()
  const made = await generate([{ name: 'commonName', value: identity.name }], {
    ...common(now, endsAt),
    ca: authority,
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      // Servers dial each other, so they are clients, too.
      { name: 'extKeyUsage', serverAuth: isServer, clientAuth: true },
      { name: 'subjectAltName', altNames: [{ type: 6, value: uri }, ...hosts.map(altNameOf)] },
    ],
  })
  return pairOf(made)
}

/** Each with an end of line, so that files can be joined. */
const pairOf = (made: { readonly cert: string; readonly private: string }): Pair => ({
  cert: `${made.cert.trimEnd()}\n`,
  key: `${made.private.trimEnd()}\n`,
})

const common = (now: EpochMs, endsAt: EpochMs) => ({
  keyType: 'ec' as const,
  curve: 'P-256' as const,
  algorithm: 'sha256',
  notBeforeDate: new Date(now - backdateMs),
  notAfterDate: new Date(endsAt),
})

function altNameOf(host: string) {
  if (isIP(host) !== 0) return { type: 7 as const, ip: host }
  if (host.length > 253 || !/^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/i.test(host))
    invalid(`${JSON.stringify(host)} is neither a host name nor an IP address`, 'without a port, and without a wildcard')
  return { type: 2 as const, value: host }
}

function endOfAuthority({ cert }: Pair, now: EpochMs): EpochMs {
  let parsed: X509Certificate
  try {
    parsed = new X509Certificate(cert)
  } catch (cause) {
    throw new KvError('INVALID_ARGUMENT', { message: 'the certificate of the authority cannot be read', cause })
  }
  if (!parsed.ca) invalid('this certificate is no authority', 'give the ca.crt that hapax cert init wrote')
  const endsAt = epochMs(Date.parse(parsed.validTo))
  if (endsAt <= now) invalid(`the authority ended at ${new Date(endsAt).toISOString()}`, 'make a new one, and trust both for a while')
  return endsAt
}

/** The files of an authority in a folder. */
const authorityFiles = (folder: string) => ({ cert: join(folder, 'ca.crt'), key: join(folder, 'ca.key') })

/**
 * Makes an authority in a folder, which is made for its owner alone when it is not there.
 * @returns the paths that were written. @throws KvError INVALID_ARGUMENT when one is there.
 */
export async function initAuthority(folder: string, cluster: string, now: EpochMs): Promise<readonly string[]> {
  const made = await makeAuthority(cluster, now)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  return writePair(authorityFiles(folder), made)
}

/**
 * Issues a certificate from the authority of a folder, as `<role>-<name>.crt` and `.key` beside it. The cluster is the authority's.
 * @returns the paths that were written. @throws KvError INVALID_ARGUMENT when they are there, or the authority is not.
 */
export async function issueInFolder(folder: string, issue: Omit<Issue, 'cluster'>, now: EpochMs): Promise<readonly string[]> {
  const files = authorityFiles(folder)
  let authority: Pair
  try {
    authority = { cert: await readFile(files.cert, 'utf8'), key: await readFile(files.key, 'utf8') }
  } catch (cause) {
    throw new KvError('INVALID_ARGUMENT', { message: `there is no authority in ${folder}`, hint: 'make one with hapax cert init', cause })
  }
  const made = await issueCertificate(authority, { ...issue, cluster: clusterOf(authority) }, now)
  const base = join(folder, `${issue.role}-${issue.name}`)
  return writePair({ cert: `${base}.crt`, key: `${base}.key` }, made)
}

/** The cluster that an authority was made for, by its own name. */
function clusterOf({ cert }: Pair): string {
  const match = /^CN=(\S+) authority$/m.exec(new X509Certificate(cert).subject)
  if (match?.[1] === undefined) invalid('the authority names no cluster', 'give one that hapax cert init made')
  return match[1]
}

/** Writes the key first, for its owner alone, then the certificate; both or none. */
async function writePair(paths: { readonly cert: string; readonly key: string }, { cert, key }: Pair): Promise<readonly string[]> {
  await writeNew(paths.key, key, 0o600)
  try {
    await writeNew(paths.cert, cert, 0o644)
  } catch (error) {
    await rm(paths.key)
    throw error
  }
  return [paths.cert, paths.key]
}

/** Writes a file that is not there yet, with exactly these rights. */
async function writeNew(path: string, text: string, mode: number): Promise<void> {
  try {
    const file = await open(path, 'wx', mode)
    try {
      await file.chmod(mode)
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause
    throw new KvError('INVALID_ARGUMENT', {
      message: `${path} is there already`,
      hint: 'move it away first: nothing is overwritten',
      cause,
    })
  }
}
