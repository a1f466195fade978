/** G17: the marker of a directory is durable before anything else is in it, on the whole way down to it. */
import type * as nodeFs from 'node:fs'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createMarker, inUse, readMarker, removeOwner, replaceMarker, writeOwner } from './directory.ts'
import { disk } from './testdata/watched-disk.ts'

vi.mock('node:fs', async (importOriginal) => {
  const { watched } = await import('./testdata/watched-disk.ts')
  return watched(await importOriginal<typeof nodeFs>())
})

let folder: string
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'hapax-marker-')))
  disk.forget()
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const marker = { format: 1, engine: 'rocksdb' } as const
/** What was done to the disk, in order: paths are named from the folder of the test. */
const done = (): string[] =>
  disk.done.map((one) => {
    const [what, path] = one.split(' ') as [string, string]
    return `${what} ${relative(folder, path).replace(`.${process.pid}`, '.new') || '.'}`
  })

test.skipIf(process.platform === 'win32')(
  'a new directory has its marker durably before anything else, and so have all directories above it',
  () => {
    createMarker(join(folder, 'one', 'two'), marker)
    expect(done()).toEqual(['sync one/two/hapax.json.new', 'link one/two/hapax.json', 'sync one/two', 'sync one', 'sync .'])
    expect(readdirSync(join(folder, 'one', 'two')).sort()).toEqual(['hapax.json', 'records'])
  },
)
test.skipIf(process.platform === 'win32')('another marker takes its place as a whole', () => {
  createMarker(folder, { ...marker, restoring: true })
  disk.done.length = 0
  replaceMarker(folder, marker)
  expect(done()).toEqual(['sync hapax.json.new', 'rename hapax.json', 'sync .'])
  expect(readMarker(folder)).toEqual(marker)
})
test('the marker of a process that was faster stays, and is the one that counts', () => {
  createMarker(folder, { format: 1, engine: 'portable' })
  expect(createMarker(folder, marker)).toEqual({ format: 1, engine: 'portable' })
  expect(readdirSync(folder).sort()).toEqual(['hapax.json', 'records'])
})
test('what a creation left that was cut off, and the root of a file system, count as nothing', () => {
  mkdirSync(join(folder, 'lost+found'))
  writeFileSync(join(folder, 'hapax.json.4711'), '{"what":')
  expect(readMarker(folder)).toBeUndefined()
  createMarker(folder, marker)
  expect(readMarker(folder)).toEqual(marker)
})
test('a path that is a file is an error with its cause', () => {
  writeFileSync(join(folder, 'file'), '')
  expect(() => createMarker(join(folder, 'file'), marker)).toThrow(
    expect.objectContaining({ code: 'UNAVAILABLE', hint: expect.any(String) }),
  )
})
test('whose the directory is, is said as well as it is known', () => {
  expect(inUse(folder, undefined)).toMatchObject({ code: 'DIRECTORY_IN_USE', message: expect.stringContaining('another process') })
  writeOwner(folder, 'fsync')
  expect(inUse(folder, undefined).message).toContain(`this process (${process.pid})`)
  const owner = JSON.parse(readFileSync(join(folder, 'owner.json'), 'utf8')) as object
  writeFileSync(join(folder, 'owner.json'), JSON.stringify({ ...owner, pid: 4711 }))
  expect(inUse(folder, undefined)).toMatchObject({
    message: expect.stringContaining('process 4711'),
    hint: expect.stringContaining('4711'),
  })
  writeFileSync(join(folder, 'owner.json'), '{"pid"')
  expect(inUse(folder, undefined).code).toBe('DIRECTORY_IN_USE')
  removeOwner(folder)
  removeOwner(folder)
})
