/**
 * `npm run figures:update` writes the table of figures in README.md from bench/results/*.json; test/docs/figures.test.ts holds the two equal.
 * Invariant: README.md has no figure of speed that is not in a result, and a figure that was missed stands beside those that were met.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = new URL('..', import.meta.url)
const begin = '<!-- figures: written by `npm run figures:update` from bench/results -->'
const end = '<!-- end of figures -->'

const resultsOf = (name) => JSON.parse(readFileSync(new URL(`bench/results/${name}.json`, root), 'utf8'))

function rowsOf({ sections }, title) {
  const section = sections.find((one) => one.title.startsWith(title))
  if (section === undefined) throw new Error(`bench/results has no section '${title}'`)
  return (name) => {
    const row = section.rows.find((one) => one.name === name)
    if (row === undefined) throw new Error(`'${title}' has no row '${name}'`)
    return row
  }
}

const thousands = ({ opsPerSecond }) => `${Math.round(opsPerSecond / 1_000).toLocaleString('en-US')}k/s`
const micros = ({ cpuUsPerOp }) => `${cpuUsPerOp.toFixed(1)} us`
const nanos = ({ hitNs }) => `${Math.round(hitNs).toLocaleString('en-US')} ns`
const count = (number) => number.toLocaleString('en-US')
const loads = ({ loads }) => loads.toFixed(1)
const admitted = ({ overAdmitted, wrongRefusals }) => `${overAdmitted} / ${wrongRefusals}`
const wrongs = ({ executedTwice, wrongReplay }) => `${executedTwice} / ${wrongReplay}`

/** @returns {string} the part of README.md between the marks */
export function figuresMarkdown() {
  const [embedded, idempotency, modify, counters, cache, limits] = ['embedded', 'idempotency', 'modify', 'counters', 'cache', 'limits'].map(
    resultsOf,
  )
  const [get, create, update, durable] = [
    'get, record cache',
    'create, survives a killed process',
    'update, survives a killed process',
    'create, survives a power cut, 128',
  ].map((title) => rowsOf(embedded, title))
  const [run, replay, answers] = ['first run', 'replay', 'answers'].map((title) => rowsOf(idempotency, title))
  const one = rowsOf(modify, 'one key')
  const [alone, fleet] = ['one key on Redis, 400 callers in 1 process', 'one key on Redis, 400 callers in 4'].map((title) =>
    rowsOf(counters, title),
  )
  const [hit, stampede, stale] = ['a hit in memory', 'stampede', 'invalidations that meet'].map((title) => rowsOf(cache, title))
  const [hotKey, manyKeys, inMemory, told] = [
    'on Redis, 64 callers, one hot key',
    'on Redis, 64 callers, 10,000',
    'in memory, 1,000 keys',
    'answers, on Redis',
  ].map((title) => rowsOf(limits, title))
  const beside = (rows, mine, theirs) => [thousands(rows(mine)), theirs.map((name) => `${name} ${thousands(rows(name))}`).join(', ')]
  const lines = [
    ['read, cached', ...beside(get, 'hapax os', ['ioredis no AOF'])],
    ['create, survives a killed process', ...beside(create, 'hapax os', ['ioredis AOF everysec', 'ioredis no AOF'])],
    ['update, survives a killed process', ...beside(update, 'hapax os', ['ioredis AOF everysec', 'ioredis no AOF'])],
    ['create, survives a power cut', ...beside(durable, 'hapax fsync', ['ioredis AOF always'])],
    ['one key, 400 callers of `modify`, survives a power cut', ...beside(one, 'modify, embedded fsync', ['INCR, ioredis autopipelining'])],
    ...[
      ['idempotent run, CPU', run],
      ['replay, CPU', replay],
    ].map(([what, rows]) => [
      what,
      micros(rows('hapax')),
      `node-idempotency ${micros(rows('node-idempotency'))}, Powertools ${micros(rows('Powertools'))}`,
    ]),
    [
      'executed twice / wrong replay, 220 keys in 11 scenarios',
      wrongs(answers('hapax')),
      ['node-idempotency', 'express-idempotency', 'Powertools'].map((name) => `${name} ${wrongs(answers(name))}`).join(', '),
    ],
    ['counter on Redis, 400 callers, 1 process', ...beside(alone, 'hapax counter', ['INCR, autopipelining'])],
    ['counter on Redis, 400 callers, 4 processes', ...beside(fleet, 'hapax counter', ['INCR, autopipelining'])],
    [
      'cache, a hit in memory',
      nanos(hit('hapax')),
      ['lru-cache fetch', 'async-cache-dedupe', 'bentocache'].map((name) => `${name} ${nanos(hit(name))}`).join(', '),
    ],
    [
      'cache, loads of a cold key, 4 processes x 500 readers',
      loads(stampede('hapax')),
      ['bentocache', 'cacheable'].map((name) => `${name} ${loads(stampede(name))}`).join(', '),
    ],
    [
      'cache, stale reads, 100,000 invalidations',
      count(stale('hapax').staleReads),
      ['bentocache', 'async-cache-dedupe'].map((name) => `${name} ${count(stale(name).staleReads)}`).join(', '),
    ],
    [
      'rate limit on Redis, one hot key',
      ...beside(hotKey, 'hapax, gcra', ['rate-limiter-flexible', '@upstash/ratelimit, cached fixed window']),
    ],
    ['rate limit on Redis, 10,000 keys', ...beside(manyKeys, 'hapax, gcra', ['rate-limiter-flexible'])],
    ['rate limit in memory, 1,000 keys', ...beside(inMemory, 'hapax, gcra', ['rate-limiter-flexible', 'express-rate-limit, its store'])],
    [
      'over-admitted / wrong refusals, 50 keys in 10 scripts, Redis',
      admitted(told('hapax, gcra')),
      ['rate-limiter-flexible', 'rate-limit-redis', '@upstash/ratelimit, cached fixed window']
        .map((name) => `${name} ${admitted(told(name))}`)
        .join(', '),
    ],
  ]
  const { machine, versions, sliceMs, at } = embedded
  return [
    begin,
    '|  | hapax | beside |',
    '| --- | --- | --- |',
    ...lines.map((cells) => `| ${cells.join(' | ')} |`),
    '',
    `Medians of at least 5 interleaved rounds of ${sliceMs} ms on ${machine.cores} cores, Node.js ${versions.node}, ${at.slice(0, 10)}; memory and the embedded store run in the process, Redis beside it.`,
    'Where a peer is ahead, it stands there. All figures, with what they leave out: [`bench/`](bench/README.md), JSON in `bench/results`.',
    end,
  ].join('\n')
}

/** @param {string} readme @returns {string} what stands between the marks, and the marks */
export function figuresIn(readme) {
  return readme.slice(readme.indexOf(begin), readme.indexOf(end) + end.length)
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const file = fileURLToPath(new URL('README.md', root))
  const readme = readFileSync(file, 'utf8')
  writeFileSync(
    file,
    readme.replace(figuresIn(readme), () => figuresMarkdown()),
  )
}
