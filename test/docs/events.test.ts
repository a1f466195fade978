/**
 * docs/events.md names every diagnostics channel with its events and their members.
 * Invariant: the page, the types in the sources and the list of the OpenTelemetry bridge say the same.
 * Why by text: event types are no values, and TypeScript 7 has no stable programming interface (docs/decisions/0004).
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { channels } from '../../core/opentelemetry/index.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

interface Channel {
  readonly name: string
  readonly events: readonly string[]
  readonly members: readonly string[]
}

const withoutComments = (code: string): string => code.replaceAll(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, '')

const matchesOf = (text: string, pattern: RegExp): string[] => [...text.matchAll(pattern)].map((match) => match[1] as string)
const sorted = (names: readonly string[]): string[] => [...new Set(names)].sort()

/** What a source file tells: its channel, the types of the events (a union `...EventType`, or in the interface itself) and the members of `...Event`. */
export function channelOf(code: string): Channel | undefined {
  const name = /(?<!\w)channel\('(hapax:[\w-]+)'\)/.exec(code)?.[1]
  if (name === undefined) return undefined
  const plain = withoutComments(code)
  const body = matchesOf(plain, /interface \w+Event \{([\s\S]*?)\n\}/g).join('\n')
  const union = /type \w+EventType =([^=]*?)\n\n?(?:export )?(?:interface|const|type|\n)/.exec(plain)?.[1] ?? ''
  const own = matchesOf(body, /^ {2}readonly type: (.*)$/gm).join()
  return {
    name,
    events: sorted(matchesOf(union + own, /'([\w-]+)'/g)),
    members: sorted(matchesOf(body, /^ {2}readonly (\w+)\??:/gm)),
  }
}

/** A channel may be told on by several files: a pattern and its doors. */
function merged(parts: readonly Channel[]): Channel[] {
  return sorted(parts.map((part) => part.name)).map((name) => {
    const own = parts.filter((part) => part.name === name)
    return { name, events: sorted(own.flatMap((part) => part.events)), members: sorted(own.flatMap((part) => part.members)) }
  })
}

/** What the page says: a section for each channel, a row for each event, and the members in the line that begins so. */
export function sectionsOf(markdown: string): Channel[] {
  return [...markdown.matchAll(/^## `(hapax:[\w-]+)`$([\s\S]*?)(?=^## |(?![\s\S]))/gm)].map(([, name = '', section = '']) => ({
    name,
    events: sorted(matchesOf(section, /^\| `([\w-]+)` \|/gm)),
    members: sorted(matchesOf(/^Members: (.*)$/m.exec(section)?.[1] ?? '', /`(\w+)`/g)),
  }))
}

const parts = ['core', 'patterns']
  .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((path) => join(root, folder, path)))
  .filter((path) => path.endsWith('.ts') && !path.endsWith('.test.ts') && !path.includes('testdata'))
  .map((path) => channelOf(readFileSync(path, 'utf8')))
  .filter((each) => each !== undefined)
const told = merged(parts)
const written = sectionsOf(readFileSync(join(root, 'docs/events.md'), 'utf8'))

describe('the channels (P11)', () => {
  test('all stand in docs/events.md, and no others', () => {
    expect(written.map((each) => each.name).sort()).toEqual(told.map((each) => each.name).sort())
  })
  test.each(told)('$name is told as docs/events.md says', ({ name, events, members }) => {
    expect(events.length).toBeGreaterThan(0)
    expect(members).toContain('type')
    expect(written.find((each) => each.name === name)).toEqual({ name, events, members })
  })
  test('are those that the OpenTelemetry bridge hears', () => {
    expect([...channels].sort()).toEqual(told.map((each) => each.name).sort())
  })
})

describe('the reading of sources and pages', () => {
  test('finds events and members, and no words of comments', () => {
    const code =
      "export type AEventType =\n  /** 'not' this. */\n  | 'b-c'\n  // 'nor' this\n  | 'a'\n\nexport interface AEvent {\n  /** Of it. */\n  readonly type: AEventType\n  readonly id?: string | undefined\n}\n" +
      "const events = channel('hapax:a')\n"
    expect(channelOf(code)).toEqual({ name: 'hapax:a', events: ['a', 'b-c'], members: ['id', 'type'] })
    expect(channelOf("interface DoorEvent {\n  readonly type: 'd' | 'c'\n  readonly by?: 1\n}\nconst a = channel('hapax:a')\n")).toEqual({
      name: 'hapax:a',
      events: ['c', 'd'],
      members: ['by', 'type'],
    })
    expect(channelOf('export const a = 1\n')).toBeUndefined()
  })
  test('finds sections, rows and members', () => {
    const markdown =
      '# A\n\n## `hapax:a`\n\n| event | |\n| --- | --- |\n| `b` | x |\n| `a` | y |\n\nMembers: `type`, `id`.\n\n## Other\n\n| `c` | |\n'
    expect(sectionsOf(markdown)).toEqual([{ name: 'hapax:a', events: ['a', 'b'], members: ['id', 'type'] }])
  })
})
