/** The network that can be hurt, with plain sockets at its ends. */
import { once } from 'node:events'
import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { Links } from './links.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})

/** Both ends of one connection through a link from 'a' to 'b'. */
async function ends(): Promise<{ readonly links: Links; readonly dialler: Socket; readonly dialled: Socket }> {
  const links = new Links()
  closing.push(() => links.close())
  const arrived: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => void arrived.push(socket.on('error', () => undefined)))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    for (const socket of arrived) socket.destroy()
    server.close()
  })
  const port = await links.open('b', (server.address() as AddressInfo).port, 'a')
  const connected = once(server, 'connection')
  const dialler = createConnection({ host: '127.0.0.1', port, allowHalfOpen: true }).on('error', () => undefined)
  closing.push(() => dialler.destroy())
  await connected
  return { links, dialler, dialled: arrived[0] as Socket }
}
const text = async (socket: Socket): Promise<string> => String((await once(socket, 'data'))[0])
/** `once` would take the reset for a failure. */
const closed = (socket: Socket): Promise<void> => new Promise((resolve) => socket.resume().once('close', () => resolve()))
/** Passes after whatever was written before it, both ways. */
async function echo(from: Socket, to: Socket): Promise<string> {
  from.write('?')
  return await text(to)
}

test('a link carries bytes and ends both ways', async () => {
  const { dialler, dialled } = await ends()
  dialler.write('up')
  expect(await text(dialled)).toBe('up')
  dialled.write('down')
  expect(await text(dialler)).toBe('down')
  dialled.resume()
  dialler.end()
  await once(dialled, 'end')
  dialled.write('last')
  expect(await text(dialler)).toBe('last')
})

test('what is held comes late and in order, and the other way goes on meanwhile', async () => {
  const { links, dialler, dialled } = await ends()
  const letGo = links.link('a', 'b').hold(['up'])
  let seen = ''
  dialled.on('data', (bytes) => (seen += String(bytes)))
  dialler.write('1')
  expect(await echo(dialled, dialler)).toBe('?')
  dialler.write('2')
  expect(await echo(dialled, dialler)).toBe('?')
  expect(seen).toBe('')
  letGo()
  letGo()
  while (seen !== '12') await once(dialled, 'data')
})

test('a link that two hold is held until both let go', async () => {
  const { links, dialler, dialled } = await ends()
  const link = links.link('a', 'b')
  const [one, other] = [link.hold(['up', 'down']), link.hold(['up'])]
  dialler.write('1')
  one()
  expect(await echo(dialled, dialler)).toBe('?')
  other()
  expect(await text(dialled)).toBe('1')
})

test('a connection through a held link is made when it is let go', async () => {
  const { links, dialler, dialled } = await ends()
  void dialler
  void dialled
  const link = links.link('c', 'b')
  const letGo = link.hold(['up'])
  const port = await links.open('b', (dialled.address() as AddressInfo).port, 'c')
  const late = createConnection({ host: '127.0.0.1', port })
  closing.push(() => late.destroy())
  await once(late, 'connect')
  expect(link.connections).toBe(0)
  letGo()
  while (link.connections === 0) await new Promise(setImmediate)
})

test('of a half-closed connection one side hears the end and the other does not', async () => {
  const { links, dialler, dialled } = await ends()
  let isEnded = false
  dialler.on('end', () => (isEnded = true)).resume()
  dialled.resume()
  const over = links.link('a', 'b').halfClose('up')
  await once(dialled, 'end')
  expect(await echo(dialled, dialler)).toBe('?')
  expect(isEnded).toBe(false)
  over()
  await closed(dialler)
})

test('a reset ends both sides at once', async () => {
  const { links, dialler, dialled } = await ends()
  const gone = Promise.all([closed(dialler), closed(dialled)])
  const link = links.link('a', 'b')
  link.reset()
  await gone
  while (link.connections > 0) await new Promise(setImmediate)
})
