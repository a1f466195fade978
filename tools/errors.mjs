/**
 * `npm run errors:update` writes docs/errors.md from the table in core/kv/errors.ts; test/docs/errors.test.ts holds the two equal.
 * Invariant: the document has every row and nothing that the table does not say.
 * Why generated: a number that a person looks up at night must not be described twice.
 */
import { writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'

const rooms = { 1: 'Environment and disk', 2: 'The contract', 3: 'Idempotency', 4: 'Counters, limits and caches' }

const retries = {
  safe: '`safe`: nothing happened, send it again as you like',
  'same-request-id': '`same-request-id`: it may have happened; only a repetition with the same request id, or a read, tells',
  never: '`never`: the same call fails again',
}

/**
 * @param {Record<string, { id: string, message: string, hint: string, retry: string }>} errors the table
 * @returns {string} docs/errors.md
 */
export function errorsMarkdown(errors) {
  const rows = Object.entries(errors).sort(([, a], [, b]) => (a.id < b.id ? -1 : 1))
  const lines = [
    '# Errors',
    '',
    '<!-- Written by `npm run errors:update` from core/kv/errors.ts. Change it there. -->',
    '',
    'Expected outcomes (`exists`, `missing`, `version`) are results and not errors.',
    'A code and its number never change their meaning once released.',
    'Every fault that hapax throws is a `KvError` with a `code` to test, an `id` to look up here, a `hint` and `retry`:',
    '',
    ...Object.values(retries).map((text) => `- ${text}`),
  ]
  let room
  for (const [code, row] of rows) {
    const digit = row.id.slice('HPX-'.length, 'HPX-'.length + 1)
    if (digit !== room) {
      room = digit
      lines.push('', `## ${digit}xxx ${rooms[digit] ?? 'Others'}`)
    }
    lines.push('', `### ${row.id} ${code}`, '', `${sentence(row.message)} (\`retry\`: \`${row.retry}\`)`, '', `What to do: ${row.hint}.`)
  }
  return `${lines.join('\n')}\n`
}

const sentence = (text) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { build } = await import('./build.mjs')
  await build()
  const { errors } = await import(new URL('../dist/core/kv/errors.js', import.meta.url).href)
  writeFileSync(fileURLToPath(new URL('../docs/errors.md', import.meta.url)), errorsMarkdown(errors))
  console.log(`docs/errors.md has ${Object.keys(errors).length} errors`)
}
