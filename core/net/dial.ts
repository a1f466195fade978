/**
 * Opens one socket to an address, in the clear on this machine or by TLS, and knows who is there before it hands it out.
 * Invariant: within the deadline there is a socket whose peer is verified, or nothing of it is left.
 * Why the role is checked beside the host name: every process of the cluster has a certificate of the same authority, and a client must not pass for a proxy.
 */
import { createConnection, type Socket } from 'node:net'
import { checkServerIdentity, connect as connectTls, type TLSSocket } from 'node:tls'
import { KvError } from '../kv/errors.ts'
import { addressText, isLoopback, needLoopback, plainRefused, type Address } from './address.ts'
import { admit, identityOf, type Identity, type Role } from './identity.ts'
import type { Ticker } from './ticker.ts'
import type { Credentials } from './tls.ts'

/** How bytes travel, said by whoever dials. */
export type DialSecurity =
  /** In the clear; loopback and Unix sockets alone. */
  | 'plain'
  | {
      readonly credentials: Credentials
      /** Who may be there. */
      readonly roles: readonly Role[]
      /** The host name that the certificate must have. Default: that of the address; needed for a Unix socket. */
      readonly serverName?: string
    }

export interface DialOptions {
  readonly address: Address
  readonly security: DialSecurity
  /** An instant of the ticker. */
  readonly deadline: number
  readonly ticker: Ticker
  readonly signal?: AbortSignal
}

export interface Dialled {
  readonly socket: Socket
  /** Absent on a plain socket. */
  readonly identity: Identity | undefined
}

/** @throws KvError UNAVAILABLE (retry `never` when the peer is the wrong one), INVALID_ARGUMENT for plain text off this machine. */
export function dial({ address, security, deadline, ticker, signal }: DialOptions): Promise<Dialled> {
  const where = addressText(address)
  return new Promise<Dialled>((resolve, reject) => {
    if (security === 'plain') needLoopback(address)
    if (signal?.aborted === true) throw unreachable(where, signal.reason)
    const socket = security === 'plain' ? createConnection({ ...address, noDelay: true }) : secure(address, security)
    const give = (error: unknown): void => {
      settled()
      socket.destroy()
      reject(error)
    }
    const onError = (error: unknown): void => give(unreachable(where, error))
    const onClose = (): void => give(unreachable(where, new Error('the peer closed the connection')))
    const onAbort = (): void => give(unreachable(where, signal?.reason))
    const onReady = (): void => {
      try {
        const identity = security === 'plain' ? undefined : peerOf(socket as TLSSocket, security)
        if (security === 'plain' && 'host' in address && !isLoopback(socket.remoteAddress)) throw plainRefused(where)
        settled()
        resolve({ socket, identity })
      } catch (error) {
        give(error)
      }
    }
    const cancel = ticker.after(deadline - ticker.now(), () => give(unreachable(where, new Error('no connection within the time allowed'))))
    const settled = (): void => {
      cancel()
      signal?.removeEventListener('abort', onAbort)
      socket.off('error', onError).off('close', onClose)
      // Whoever takes the socket listens anew; one that is given up may fail once more.
      socket.on('error', () => undefined)
    }
    socket
      .once(security === 'plain' ? 'connect' : 'secureConnect', onReady)
      .on('error', onError)
      .on('close', onClose)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

function secure(address: Address, { credentials, serverName }: Exclude<DialSecurity, 'plain'>): TLSSocket {
  const host = serverName ?? ('host' in address ? address.host : undefined)
  if (host === undefined)
    throw new KvError('INVALID_ARGUMENT', {
      message: 'TLS over a Unix socket needs the host name that the certificate must have',
      hint: 'say serverName',
    })
  const isIp = /^[\d.]+$|:/.test(host)
  const socket = connectTls({
    ...('path' in address ? { path: address.path } : { host: address.host, port: address.port }),
    secureContext: credentials.state.secureContext,
    minVersion: 'TLSv1.3',
    rejectUnauthorized: true,
    // An IP address is no server name (RFC 6066), but it is a name that the certificate must have.
    ...(isIp ? {} : { servername: host }),
    checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate),
  })
  return socket.setNoDelay(true)
}

function peerOf(socket: TLSSocket, { credentials, roles }: Exclude<DialSecurity, 'plain'>): Identity {
  const { cluster } = credentials.state.identity
  return admit(identityOf(socket.getPeerX509Certificate()?.subjectAltName), { cluster, allowed: roles })
}

/** Codes of a peer that is there but is not who it should be; the rest is trouble of the network, which passes. */
const refusalCodes = /^(ERR_TLS_CERT|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|ERR_SSL_|INVALID_(CA|PURPOSE))/

function unreachable(where: string, cause: unknown): KvError {
  const code = String((cause as { code?: unknown } | undefined)?.code ?? '')
  if (!refusalCodes.test(code)) return new KvError('UNAVAILABLE', { message: `${where} cannot be reached`, cause })
  return new KvError('UNAVAILABLE', {
    message: `no trust between this process and ${where} (${code})`,
    hint: 'look at `cause`: the authority, the host name or the end of the certificate does not fit',
    retry: 'never',
    cause,
  })
}
