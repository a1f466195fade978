/** The example prints a trace: what hapax did, on the span of the request that it did it for. */
import { expect, test } from 'vitest'
import { main } from './main.ts'

test('the example prints a payment, its repetition and a mistake as one trace, and counts them (P11)', async () => {
  const lines: string[] = []
  await main((line) => void lines.push(line.replaceAll(/"hapax.id":"[\w-]{16}"/g, '"hapax.id":"..."')))
  expect(lines.filter((line) => !line.includes('{'))).toEqual([
    'three requests',
    '  POST /payments',
    '    charge',
    '  POST /payments',
    '  POST /payments',
    '',
  ])
  const requests = lines.join('\n').split('  POST /payments\n').slice(1)
  expect(requests[0]).toContain('hapax.idempotency.claimed')
  expect(requests[0]).toContain('hapax.idempotency.step-saved')
  expect(requests[0]).toContain('hapax.idempotency.completed')
  expect(requests[1]).toContain('hapax.idempotency.replayed')
  expect(requests[1]).not.toContain('claimed')
  expect(requests[2]).toMatch(/hapax\.idempotency\.refused .*"hapax\.refusal":"mismatch"/)
  expect(lines).toContain('hapax.idempotency.events {"hapax.event":"replayed","hapax.name":"payments"}: 1')
  expect(lines).toContain('hapax.idempotency.events {"hapax.event":"refused","hapax.refusal":"mismatch","hapax.name":"payments"}: 1')
})
