/**
 * Loaded before `hapax serve` (node --import): the process dials from an address of the loopback that is its own.
 * Why: certificates travel encrypted and ports are drawn, so nothing else tells the network between who dials, and each pair is a link of its own.
 */
import { Socket } from 'node:net'

const localAddress = process.env['CHAOS_SOURCE']
type Connect = (...args: unknown[]) => Socket
// eslint-disable-next-line @typescript-eslint/unbound-method -- it is called with its socket below
const connect = Socket.prototype.connect as Connect

Socket.prototype.connect = function (this: Socket, ...args: unknown[]): Socket {
  // `net.connect` and `tls.connect` hand over what they made of their arguments: a list with the options first.
  const [first] = args
  const options: unknown = Array.isArray(first) ? first[0] : first
  if (localAddress !== undefined && isToLoopback(options)) options.localAddress = localAddress
  return connect.apply(this, args)
} as typeof Socket.prototype.connect

function isToLoopback(options: unknown): options is { host: string; localAddress?: string } {
  return typeof options === 'object' && options !== null && 'host' in options && options.host === '127.0.0.1'
}
