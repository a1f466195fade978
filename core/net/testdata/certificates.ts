/** Certificates for tests, the odd ones included. What ships is in server/edge/certificates.ts. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import type { TlsFiles } from '../tls.ts'

export interface Pems {
  readonly cert: string
  readonly key: string
}
const dayMs = 86_400_000

export async function makeAuthority(name = 'test'): Promise<Pems> {
  const made = await generate([{ name: 'commonName', value: name }], {
    keyType: 'ec',
    algorithm: 'sha256',
    notBeforeDate: new Date(Date.now() - dayMs),
    notAfterDate: new Date(Date.now() + 10 * dayMs),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  })
  return { cert: made.cert, key: made.private }
}

export interface Wish {
  /** Default `spiffe://hapax/proxy/p1`. */
  readonly uris?: readonly string[]
  readonly dns?: readonly string[]
  readonly ips?: readonly string[]
  /** Default in 5 days. */
  readonly endsInMs?: number
  readonly isClientOnly?: boolean
}

export async function makeCertificate(authority: Pems, wish: Wish = {}): Promise<Pems> {
  const { uris = ['spiffe://hapax/proxy/p1'], dns = ['localhost'], ips = ['127.0.0.1'], endsInMs = 5 * dayMs, isClientOnly = false } = wish
  const altNames = [
    ...uris.map((value) => ({ type: 6 as const, value })),
    ...dns.map((value) => ({ type: 2 as const, value })),
    ...ips.map((ip) => ({ type: 7 as const, ip })),
  ]
  const made = await generate([{ name: 'commonName', value: 'leaf' }], {
    keyType: 'ec',
    algorithm: 'sha256',
    ca: authority,
    notBeforeDate: new Date(Date.now() - dayMs),
    notAfterDate: new Date(Date.now() + endsInMs),
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: !isClientOnly, clientAuth: true },
      ...(altNames.length > 0 ? [{ name: 'subjectAltName' as const, altNames }] : []),
    ],
  })
  return { cert: made.cert, key: made.private }
}

/** A folder for certificates, gone after the test. */
export class Folder {
  readonly path = mkdtempSync(join(tmpdir(), 'hapax-tls-'))

  /** Writes the files of one process. */
  write(name: string, authorities: readonly Pems[], { cert, key }: Pems): TlsFiles {
    const files = { ca: join(this.path, `${name}-ca.crt`), cert: join(this.path, `${name}.crt`), key: join(this.path, `${name}.key`) }
    writeFileSync(files.ca, authorities.map((authority) => authority.cert).join('\n'))
    writeFileSync(files.cert, cert)
    writeFileSync(files.key, key, { mode: 0o600 })
    return files
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}
