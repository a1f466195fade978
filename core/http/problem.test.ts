/** How refusals are said: RFC 9457, in text where the client wants it, or as a renderer says. */
import { expect, test } from 'vitest'
import { replyTo, type Problem, type Rendered, type Reply } from './problem.ts'

const problem: Problem = { status: 409, kind: 'in-flight', type: 'urn:a:b', title: 'Wait', detail: 'It still runs.' }
const shown = ({ status, headers, body }: Reply) => ({ status, headers: Object.fromEntries(headers), text: Buffer.from(body).toString() })

test('a problem is a document with type, title, status and detail', () => {
  const { status, headers, text } = shown(replyTo(problem, undefined))
  expect(status).toBe(409)
  expect(headers).toEqual({ 'Content-Type': 'application/problem+json' })
  expect(JSON.parse(text)).toEqual({ type: 'urn:a:b', title: 'Wait', status: 409, detail: 'It still runs.' })
})

test.each([
  ['', true],
  ['*/*', true],
  ['application/json', true],
  ['application/problem+json', true],
  ['application/*', true],
  ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', true],
  ['text/html, text/plain;q=0.5, application/json;q=0.6', true],
  ['image/png', true],
  ['text/plain', false],
  ['text/html', false],
  ['text/*', false],
  ['text/plain, */*;q=0.1', false],
  ['text/plain, application/json;q=0', false],
  [`text/plain,${'a/b,'.repeat(300)}`, true],
])('a client that accepts %s gets JSON: %s', (accept, isJson) => {
  const { headers, text } = shown(replyTo(problem, accept))
  expect(headers['Content-Type']).toBe(isJson ? 'application/problem+json' : 'text/plain; charset=utf-8')
  expect(text).toBe(
    isJson ? JSON.stringify({ type: 'urn:a:b', title: 'Wait', status: 409, detail: 'It still runs.' }) : 'Wait: It still runs.\n',
  )
})

test.each([
  [0, '1'],
  [1, '1'],
  [1_000, '1'],
  [1_001, '2'],
])('%i ms are said as Retry-After: %s', (retryAfterMs, seconds) => {
  expect(shown(replyTo({ ...problem, retryAfterMs, location: '/a' }, undefined)).headers).toMatchObject({
    'Retry-After': seconds,
    Location: '/a',
  })
})

test.each<[string, Rendered, { status: number; headers: object; text: string }]>([
  [
    'an object',
    { body: { a: 1 } },
    { status: 409, headers: { 'Retry-After': '1', 'Content-Type': 'application/json; charset=utf-8' }, text: '{"a":1}' },
  ],
  [
    'text and a status',
    { status: 400, body: 'no' },
    { status: 400, headers: { 'Retry-After': '1', 'Content-Type': 'text/plain; charset=utf-8' }, text: 'no' },
  ],
  ['bytes', { body: new Uint8Array([65]) }, { status: 409, headers: { 'Retry-After': '1' }, text: 'A' }],
  [
    'headers of its own',
    { body: { a: 1 }, headers: { 'content-type': 'application/x', 'retry-after': '7' } },
    { status: 409, headers: { 'content-type': 'application/x', 'retry-after': '7' }, text: '{"a":1}' },
  ],
])('a renderer gives %s', (_what, rendered, expected) => {
  expect(shown(replyTo({ ...problem, retryAfterMs: 1 }, 'text/plain', rendered))).toEqual(expected)
})

test('more members stand beside the usual ones and never replace them', () => {
  const { text } = shown(replyTo({ ...problem, members: { 'violated-policies': ['burst'], status: 200 } }, undefined))
  expect(JSON.parse(text)).toEqual({
    type: 'urn:a:b',
    title: 'Wait',
    status: 409,
    detail: 'It still runs.',
    'violated-policies': ['burst'],
  })
})
