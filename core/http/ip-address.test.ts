/**
 * Addresses, held against node:net's own reading of them.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net'
import { describe, expect, test } from 'vitest'
import { seededRandom, type Random } from '../base/random.ts'
import { contains, holdsAllIpv4, isIpv4, networkText, parseIp, parseIpAndPort, parseNetwork } from './ip-address.ts'

const seed = Number(process.env['HAPAX_SEED'] ?? 4711)

/** Valid, nearly valid, and wild. */
function anyText(random: Random): string {
  const group = (): string =>
    random.pick(['0', '1', 'ffff', 'FFFF', 'a', '0db8', '64', 'ff9b', '00000', 'g', '', '10', String(random.int(300))])
  const octet = (): string => random.pick(['0', '1', '255', '256', '01', '00', '', '-1', '1e1', String(random.int(1_000))])
  const ipv4 = (): string => Array.from({ length: random.pick([4, 4, 4, 4, 3, 5]) }, octet).join('.')
  const ipv6 = (): string => {
    const before = Array.from({ length: random.int(9) }, group).join(':')
    const after = Array.from({ length: random.int(9) }, group).join(':')
    return random.pick([
      before,
      `${before}::${after}`,
      `${before}:${ipv4()}`,
      `::${ipv4()}`,
      `${before}::${after}:${ipv4()}`,
      `::ffff:${ipv4()}`,
    ])
  }
  const text = random.pick([ipv4, ipv6])()
  if (!random.chance(0.2)) return text
  const at = random.int(text.length + 1)
  return text.slice(0, at) + random.pick([':', '.', ' ', '%', '/', '\0', '::', '١', '0', 'f']) + text.slice(at + random.int(2))
}

const exact = (random: Random, isV4: boolean): string =>
  isV4
    ? Array.from({ length: 4 }, () => random.pick([0, 10, 127, 192, 255, random.int(256)])).join('.')
    : Array.from({ length: 8 }, () => random.pick([0, 0, 0xffff, 0x2001, random.int(65_536)]).toString(16)).join(':')

describe('parseIp', () => {
  test(`takes what node:net takes and refuses what it refuses, 100,000 times (seed ${seed})`, () => {
    const random = seededRandom(seed)
    const seen = { taken: 0, refused: 0 }
    for (let count = 0; count < 100_000; count++) {
      const text = anyText(random)
      if (text.includes('%')) continue // node's rule of zones changed between releases
      const isTaken = isIPv4(text) || isIPv6(text)
      seen[isTaken ? 'taken' : 'refused']++
      if ((parseIp(text) !== undefined) !== isTaken) expect({ text, isTaken }).toEqual({ text, isTaken: !isTaken })
    }
    expect(Math.min(seen.taken, seen.refused)).toBeGreaterThan(1_000)
  })

  test('reads every way to write an address as the same value', () => {
    const ipv4 = ['192.0.2.1', '::ffff:192.0.2.1', '::ffff:c000:201', '0:0:0:0:0:ffff:192.0.2.1', '::FFFF:C000:0201', '0::ffff:192.0.2.1']
    for (const text of ipv4) expect(parseIp(text), text).toEqual(parseIp('192.0.2.1'))
    const ipv6 = ['2001:db8::1', '2001:DB8:0:0:0:0:0:1', '2001:0db8::0001', '2001:db8::0.0.0.1', '2001:db8::1%eth0']
    for (const text of ipv6) expect(parseIp(text), text).toEqual([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])
    expect(parseIp('::192.0.2.1')).not.toEqual(parseIp('192.0.2.1'))
  })

  test.each([
    '',
    ' ',
    ':',
    ':::',
    '1::2::3',
    '010.0.0.1',
    '0x7f.1',
    '127.1',
    '2130706433',
    '1.2.3.4.',
    '::1%',
    '[::1]',
    `::${'1:'.repeat(50)}`,
    '1'.repeat(99),
    `::1%${'x'.repeat(99)}`,
  ])('refuses %j', (text) => expect(parseIp(text)).toBeUndefined())
})

describe('parseIpAndPort', () => {
  test.each([
    ['1.2.3.4:80', '1.2.3.4'],
    [' 1.2.3.4 ', '1.2.3.4'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['[2001:db8::1]:443', '2001:db8::1'],
    ['2001:db8::1', '2001:db8::1'],
  ])('reads %j', (text, address) => expect(parseIpAndPort(text)).toEqual(parseIp(address)))

  test.each([
    'unknown',
    '_hidden',
    '1.2.3.4:',
    '1.2.3.4:x',
    '1.2.3.4:123456',
    '[1.2.3.4]',
    '[::1',
    '::1]',
    '[::1]:',
    '"1.2.3.4"',
    '1.2.3.4 5.6.7.8',
    ' '.repeat(99),
  ])('refuses %j', (text) => expect(parseIpAndPort(text)).toBeUndefined())
})

describe('networks', () => {
  test(`hold what a BlockList of node:net holds, 5,000 times (seed ${seed})`, () => {
    const random = seededRandom(seed)
    const seen = { in: 0, out: 0 }
    for (let count = 0; count < 5_000; count++) {
      const isV4 = random.chance(0.5)
      const base = exact(random, isV4)
      const bits = random.int((isV4 ? 32 : 128) + 1)
      const list = new BlockList()
      list.addSubnet(base, bits, isV4 ? 'ipv4' : 'ipv6')
      const address = parseIp(base)
      if (address === undefined) throw new Error(base)
      const network = { address, bits: bits + (isV4 ? 96 : 0) }
      // Near the base, so that both answers are frequent.
      const near = base.split(isV4 ? '.' : ':')
      near[random.int(near.length)] = isV4 ? String(random.int(256)) : random.int(65_536).toString(16)
      const other = near.join(isV4 ? '.' : ':')
      const expected = list.check(other, isV4 ? 'ipv4' : 'ipv6')
      seen[expected ? 'in' : 'out']++
      expect({ base, bits, other, isIn: contains(network, parseIp(other) ?? []) }).toEqual({ base, bits, other, isIn: expected })
    }
    expect(Math.min(seen.in, seen.out)).toBeGreaterThan(500)
  })

  test('are read with their bits, and IPv4 in its mapped form is IPv4', () => {
    expect(parseNetwork('10.0.0.0/8')).toEqual(parseNetwork('::ffff:10.0.0.0/104'))
    expect(parseNetwork('192.0.2.1')).toEqual(parseNetwork('192.0.2.1/32'))
    expect(parseNetwork('::1')?.bits).toBe(128)
    for (const text of ['10.0.0.1/8', 'fd00::1/8', '10.0.0.0/33', '::/129', '/8', '10.0.0.0/', '10.0.0.0/-1', '10/8', 'all'])
      expect(parseNetwork(text), text).toBeUndefined()
  })

  test('that hold all of IPv4 are known', () => {
    const holds = (text: string): boolean => holdsAllIpv4(parseNetwork(text) ?? { address: [], bits: 128 })
    expect(['0.0.0.0/0', '::/0', '::/8', '::ffff:0.0.0.0/96'].map(holds)).toEqual([true, true, true, true])
    expect(['128.0.0.0/1', '2000::/3', '10.0.0.0/8'].map(holds)).toEqual([false, false, false])
  })

  test('have one text, which names no other network', () => {
    const text = (address: string, bits = 56): string => networkText(parseIp(address) ?? [], bits)
    expect(text('::ffff:c000:201')).toBe('192.0.2.1')
    expect(text('2001:db8:aaaa:bbcc:1::1')).toBe('2001:db8:aaaa:bb00::/56')
    expect(text('2001:db8:aaaa:bbcc:1::1', 64)).toBe('2001:db8:aaaa:bbcc::/64')
    expect(text('::1')).toBe('::/56')
    expect(text('1:2:3:4:5:6:7:8', 112)).toBe('1:2:3:4:5:6:7:0/112')
    expect(text('1:2:3:4:5:6:7:8', 128)).toBe('1:2:3:4:5:6:7:8/128')
    const random = seededRandom(seed)
    for (let count = 0; count < 2_000; count++) {
      const address = parseIp(exact(random, false)) ?? []
      const bits = 1 + random.int(128)
      const again = parseNetwork(networkText(address, bits))
      if (isIpv4(address)) continue
      expect(again?.bits).toBe(bits)
      expect(contains(again ?? { address: [], bits: 0 }, address)).toBe(true)
    }
  })
})
