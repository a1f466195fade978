/**
 * What our own code does to the disk, for tests of syncs: `node:fs` with its opens, syncs, links and renames noted.
 * Invariant: every call reaches the real disk first, and is noted only when it succeeded.
 * Why no `node:fs` is imported here: a test puts `watched` in its place, and hands in the real one.
 */
import type * as nodeFs from 'node:fs'

export const disk = {
  /** The path that each open file was opened by. */
  paths: new Map<number, string>(),
  /** What was done to names, and synced at once, in order: 'sync <path>', 'link <path>', 'rename <path>'. */
  done: [] as string[],
  /** How long each file was when it was last synced in the background. */
  synced: new Map<string, number>(),
  /** What a sync in the background fails with. */
  fault: undefined as Error | undefined,
  forget(): void {
    disk.done.length = 0
    disk.synced.clear()
    disk.fault = undefined
  },
}

/** Stands in for `node:fs`. The factory of `vi.mock` must import it itself: it runs before the imports of its file. */
export const watched = (fs: typeof nodeFs) => ({
  ...fs,
  openSync(...given: Parameters<typeof fs.openSync>) {
    const fd = fs.openSync(...given)
    disk.paths.set(fd, String(given[0]))
    return fd
  },
  fsyncSync(fd: number) {
    fs.fsyncSync(fd)
    disk.done.push(`sync ${disk.paths.get(fd)}`)
  },
  fdatasync(fd: number, done: (error: Error | null) => void) {
    const { size } = fs.fstatSync(fd)
    fs.fdatasync(fd, (error) => {
      if (disk.fault === undefined && error === null) disk.synced.set(disk.paths.get(fd) as string, size)
      done(disk.fault ?? error)
    })
  },
  linkSync(from: string, to: string) {
    fs.linkSync(from, to)
    disk.done.push(`link ${to}`)
  },
  renameSync(from: string, to: string) {
    fs.renameSync(from, to)
    disk.done.push(`rename ${to}`)
  },
})
