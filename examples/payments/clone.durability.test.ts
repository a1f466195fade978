/**
 * The first five minutes of somebody who has just cloned the repository: empty HOME, one command (G3, G31).
 * The installed packages are linked and not installed again: whether the lock installs is another test's matter.
 */
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { expect, test } from 'vitest'
import { ledgerOf, postUntilAnswered, processesOf, root } from './testdata/started-shop.ts'

const notCloned = new Set(['node_modules', 'dist', '.git', '.cache', 'data', 'coverage'])

/** What git has committed; where git cannot clone (an unpacked archive, another owner), the files as they lie here. */
function clone(target: string): void {
  const safe = { GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'safe.directory', GIT_CONFIG_VALUE_0: '*' }
  const cloned = spawnSync('git', ['clone', '--quiet', '--no-hardlinks', root, target], { env: { ...process.env, ...safe } })
  if (cloned.status === 0) return
  rmSync(target, { recursive: true, force: true })
  cpSync(root, target, { recursive: true, filter: (path) => !notCloned.has(relative(root, path).split('/')[0] ?? '') })
}

test(
  'a fresh clone with an empty HOME: npm start, two equal payments, a kill in the middle, SIGTERM, nothing left (G31)',
  { timeout: 170_000 },
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'hapax-clone-'))
    const [repository, home, tmp] = [join(folder, 'hapax'), join(folder, 'home'), join(folder, 'tmp')]
    mkdirSync(home)
    mkdirSync(tmp)
    const env = {
      PATH: process.env.PATH,
      HOME: home,
      TMPDIR: tmp,
      PORT: '0',
      npm_config_update_notifier: 'false',
      npm_config_cache: join(home, '.npm'),
    }
    try {
      clone(repository)
      symlinkSync(join(root, 'node_modules'), join(repository, 'node_modules'))
      const child = spawn('npm', ['start'], { cwd: repository, env, stdio: ['ignore', 'pipe', 'pipe'] })

      const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
      let output = ''
      const opened = new Promise<string>((resolve) => {
        for (const stream of [child.stdout, child.stderr]) {
          stream.setEncoding('utf8').on('data', (chunk: string) => {
            output += chunk
            const line = /^http:\/\/127\.0\.0\.1:\d+$/m.exec(output)
            if (line) resolve(line[0])
          })
        }
      })
      const failed = ended.then((code) => Promise.reject(new Error(`npm start ended with ${code}:\n${output}`)))
      const url = await Promise.race([opened, failed])
      failed.catch(() => undefined)

      const pay = { order: '1001', amount: 2990 }
      const answers = await Promise.all([postUntilAnswered(`${url}/payments`, 'k1', pay), postUntilAnswered(`${url}/payments`, 'k1', pay)])
      expect(answers.map((answer) => answer.status)).toEqual([201, 201])
      expect(await ledgerOf(url, '1001')).toMatchObject({ booked: 1 })
      const order = JSON.parse((await postUntilAnswered(`${url}/orders`, 'o1', { amount: 700 })).text) as { id: string }
      await fetch(`${url}/demo/kill-in-next-charge`, { method: 'POST' })
      expect((await postUntilAnswered(`${url}/payments`, 'k2', { order: order.id, amount: 700 })).status).toBe(201)
      expect(await ledgerOf(url, order.id)).toMatchObject({ charges: 2, booked: 1 })

      child.kill('SIGTERM')
      expect(await ended).toBe(0)
      expect(await processesOf(tmp)).toEqual([])
      // npm, Node and the store's verdict on its engine may keep caches there; this is what the shop makes.
      expect(readdirSync(tmp).filter((name) => name.startsWith('hapax-shop'))).toEqual([])
    } finally {
      for (const pid of await processesOf(tmp, 0)) process.kill(pid, 'SIGKILL')
      rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
    }
  },
)
