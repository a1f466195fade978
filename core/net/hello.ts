/**
 * Looks at the first bytes of a TLS peer before TLS does.
 * Invariant: until a peer has sent the beginning of an ordinary ClientHello it costs a socket and nine bytes, no TLS state and no buffer.
 * Why at all: OpenSSL takes the memory that a message says it needs, up to 128 KiB for a ClientHello, before the message is there.
 */
import type { Socket } from 'node:net'

/** Record header (type, version, length) and handshake header (type, length): RFC 8446, 5.1 and 4. */
const headBytes = 9
const handshakeRecord = 22
const clientHello = 1
/** A ClientHello with keys for post-quantum exchange has 2 KiB. It has to fit one record. */
const helloBytesMax = 16_384

/** What the first bytes are: `more` are needed, the beginning of a ClientHello, or something else. */
export function judgeHello(bytes: Uint8Array): 'more' | 'hello' | 'no' {
  const [type, major, , high = 0, low = 0, message, top = 0, middle = 0, bottom = 0] = bytes
  if (type !== undefined && type !== handshakeRecord) return 'no'
  if (major !== undefined && major !== 3) return 'no'
  if (message !== undefined && message !== clientHello) return 'no'
  if (bytes.length < headBytes) return 'more'
  const messageBytes = (top << 16) | (middle << 8) | bottom
  return high * 256 + low <= helloBytesMax && messageBytes <= helloBytesMax ? 'hello' : 'no'
}

/** Calls back once, when the peer has shown what it is; the bytes are then in the socket again. Never, when it ends before. */
export function awaitHello(socket: Socket, isHello: (yes: boolean) => void): void {
  let head: Buffer = Buffer.alloc(0)
  const onReadable = (): void => {
    // All that is there: 64 KiB at the most, the size of one read. Bytes that are put back too early would be read again at once, for ever.
    const bytes = socket.read() as Buffer | null
    if (bytes === null) return
    head = head.byteLength === 0 ? bytes : Buffer.concat([head, bytes])
    const verdict = judgeHello(head)
    if (verdict === 'more') return
    socket.off('readable', onReadable)
    socket.unshift(head)
    isHello(verdict === 'hello')
  }
  socket.on('readable', onReadable)
}
