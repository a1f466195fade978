/**
 * The page in a real browser: every button, every number, both widths, keyboard alone, no request to anywhere else (G29, G31); and on a cluster (W19).
 * Screenshots lie in HAPAX_SCREENSHOTS, else in a folder that is removed.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { chromium, type BrowserContext, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { build, startShop, type StartedShop } from './testdata/started-shop.ts'

const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]
const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome']
/** A killed shop is back and its lease over within some seconds; a busy machine takes longer. */
const patience = { timeout: 40_000 }

let folder = ''
let shop: StartedShop
/** The shop on a cluster. */
let clustered: StartedShop
let context: BrowserContext
const strangers: string[] = []
const errors: string[] = []

beforeAll(async () => {
  build()
  folder = mkdtempSync(join(tmpdir(), 'hapax-browser-'))
  if (process.env.HAPAX_SCREENSHOTS) mkdirSync(process.env.HAPAX_SCREENSHOTS, { recursive: true })
  shop = await startShop({ LEASE: '4s' })
  clustered = await startShop({}, ['dist/examples/payments/main.js', '--cluster'])
  const found = (process.env.PATH ?? '').split(delimiter).flatMap((path) => names.map((name) => join(path, name)))
  const executablePath = process.env.HAPAX_CHROMIUM ?? found.find((path) => existsSync(path))
  if (executablePath === undefined) throw new Error(`there is none of ${names.join(', ')} on the PATH`)
  context = await chromium.launchPersistentContext(join(folder, 'profile'), {
    executablePath,
    args,
    env: { ...process.env, HOME: folder },
    reducedMotion: 'reduce',
  })
  context.on('request', (request) => {
    const own = [`${shop.url}/`, `${clustered.url}/`, 'data:']
    if (!own.some((start) => request.url().startsWith(start))) strangers.push(request.url())
  })
}, 180_000)

afterAll(async () => {
  await context?.close()
  await shop?.end('SIGTERM')
  await clustered?.end('SIGTERM')
  rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
}, 60_000)

async function opened(width: number, height: number, colorScheme: 'light' | 'dark' = 'light', { url } = shop): Promise<Page> {
  const page = await context.newPage()
  page.on('pageerror', (error) => errors.push(error.message))
  await page.setViewportSize({ width, height })
  await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
  await page.goto(url)
  await page.getByRole('button', { name: 'Pay', exact: true }).and(page.locator(':enabled')).waitFor(patience)
  return page
}
const press = async (page: Page, name: string): Promise<void> => {
  await page.getByRole('button', { name, exact: true }).click(patience)
  await idle(page)
}
/** The buttons are off while a request is on its way. */
const idle = (page: Page): Promise<void> =>
  page.getByRole('button', { name: 'Pay', exact: true }).and(page.locator(':enabled')).waitFor(patience)
const numberIs = (page: Page, name: string, value: number): Promise<void> =>
  page.locator(`[data-testid=${name}]`, { hasText: new RegExp(`^${value}$`) }).waitFor(patience)
const rawOf = async (page: Page): Promise<string> => (await page.getByTestId('raw').textContent()) ?? ''
const shot = (page: Page, name: string): Promise<unknown> =>
  page.screenshot({ path: join(process.env.HAPAX_SCREENSHOTS ?? folder, `${name}.png`), fullPage: true })
const overflow = (page: Page): Promise<number> =>
  page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')

test('paying twice at once is one charge and two equal answers, one of them a replay; another amount is refused (G29)', async () => {
  const page = await opened(1440, 900)
  await numberIs(page, 'booked', 0)
  await press(page, 'Pay twice at once')
  await numberIs(page, 'booked', 1)
  await numberIs(page, 'asked', 1)
  const rows = page.locator('.exchanges li', { hasText: 'Pay, ' })
  expect(await rows.count()).toBe(2)
  expect(await rows.locator('mark').count()).toBe(1)
  const bodies: (string | undefined)[] = []
  for (const index of [0, 1]) {
    await rows.nth(index).getByRole('button').click()
    const raw = await rawOf(page)
    expect(raw).toContain('HTTP 201')
    bodies.push(raw.split('\n\n')[1])
  }
  expect(bodies[0]).toBe(bodies[1])
  await press(page, 'Pay')
  expect(await rawOf(page)).toMatch(/idempotent-replayed: true/)
  await press(page, 'Same key, other amount')
  expect(await rawOf(page)).toMatch(/^HTTP 422[\s\S]*application\/problem\+json[\s\S]*"status":\s*422/)
  await press(page, 'New key')
  await press(page, 'Pay')
  expect(await rawOf(page)).toMatch(/^HTTP 409[\s\S]*The order is paid/)
  await numberIs(page, 'booked', 1)
  await page.locator('.log li', { hasText: 'charge booked' }).first().waitFor(patience)
  await page.locator('.log li', { hasText: 'stored answer sent again' }).first().waitFor(patience)
  await shot(page, 'paid-1440')
  const order = await page.getByTestId('order').textContent()
  await press(page, 'New order')
  expect(await page.getByTestId('order').textContent()).not.toBe(order)
  await numberIs(page, 'booked', 0)
  expect(await overflow(page)).toBe(0)
  await page.close()
})

test('the shop killed in the middle of a charge comes back, and the page ends with one charge (G29)', async () => {
  const page = await opened(390, 844)
  await press(page, 'Kill the shop in the middle of this charge')
  await numberIs(page, 'booked', 1)
  await numberIs(page, 'asked', 2)
  expect(await rawOf(page)).toMatch(/^HTTP 201/)
  await page.locator('.exchanges li', { hasText: 'cut' }).first().waitFor(patience)
  for (const what of ['the shop died', 'the shop is back', 'taken over after a crash', 'asked again, booked once']) {
    await page.locator('.log li', { hasText: what }).first().waitFor(patience)
  }
  expect(await overflow(page)).toBe(0)
  await shot(page, 'killed-390')
  await press(page, 'Kill it now')
  await press(page, 'Pay')
  expect(await rawOf(page)).toMatch(/idempotent-replayed: true/)
  await numberIs(page, 'booked', 1)
  await page.close()
})

test('a burst beyond the limit is refused, and the warehouse has given no quote more (P10)', async () => {
  const page = await opened(1440, 900)
  await page.getByRole('button', { name: 'Ask 20 times at once', exact: true }).click(patience)
  await numberIs(page, 'quotes-granted', 10)
  await numberIs(page, 'quotes-refused', 10)
  await numberIs(page, 'quotes-given', 10)
  expect(await page.getByTestId('limit-lines').textContent()).toMatch(/ratelimit: "quotes";r=0;t=\d+/)
  expect(await page.getByTestId('quotes-left').getAttribute('value')).toBe('0')
  await page.close()
})

test('a hundred buyers race for twenty units: twenty are sold, none more is shipped (P10)', async () => {
  const page = await opened(390, 844)
  await page.getByRole('button', { name: '100 buyers race for 20 units', exact: true }).click(patience)
  await numberIs(page, 'stock-sold', 20)
  await numberIs(page, 'stock-refused', 80)
  await numberIs(page, 'stock-left', 0)
  await numberIs(page, 'oversold', 0)
  expect(await page.getByText('the warehouse has shipped 20 of 20').count()).toBe(1)
  expect(await overflow(page)).toBe(0)
  await shot(page, 'race-390')
  await page.close()
})

test('five hundred readers of a cold page are one read of the warehouse (P10)', async () => {
  const page = await opened(1440, 900)
  await page.getByRole('button', { name: '500 readers at once', exact: true }).click(patience)
  await numberIs(page, 'cache-answered', 500)
  await numberIs(page, 'cache-reads', 1)
  await shot(page, 'panels-1440')
  await page.close()
})

test('the keyboard alone is enough, and the focus is seen (G29)', async () => {
  const page = await opened(1440, 900, 'dark')
  for (let presses = 0; presses < 20; presses += 1) {
    await page.keyboard.press('Tab')
    if ((await page.evaluate('document.activeElement.textContent')) === 'Pay') break
  }
  expect(await page.evaluate('getComputedStyle(document.activeElement).outlineStyle')).toBe('solid')
  await page.keyboard.press('Enter')
  await numberIs(page, 'booked', 1)
  await idle(page)
  expect(await page.evaluate("getComputedStyle(document.querySelector('button')).transitionProperty")).toBe('none')
  await shot(page, 'dark-1440')
  await page.setViewportSize({ width: 390, height: 844 })
  expect(await overflow(page)).toBe(0)
  await page.close()
})

test('on a cluster a storage server is killed while a hundred pay: all are paid, and charged once; it comes back (W19)', async () => {
  const page = await opened(1440, 900, 'light', clustered)
  const pidOf = async (): Promise<string | null> => page.getByTestId('storage-1').locator('em').textContent()
  await page.getByTestId('storage-1').getByText('serving').waitFor(patience)
  const pid = await pidOf()
  await page.getByRole('button', { name: '100 pay while a storage server is killed', exact: true }).click(patience)
  await numberIs(page, 'rush-paid', 100)
  await numberIs(page, 'rush-failed', 0)
  await numberIs(page, 'rush-charges', 100)
  for (const what of ['killed', 'serves again']) {
    await page.locator('.log li', { hasText: what }).filter({ hasText: 'storage-1' }).first().waitFor(patience)
  }
  await page.getByTestId('storage-1').getByText('serving').waitFor(patience)
  expect(await pidOf()).not.toBe(pid)
  await shot(page, 'cluster-1440')
  await page.close()
})

test('on a cluster one storage server is stopped and then one is slow: writes are accepted, and paying goes on (W19)', async () => {
  const page = await opened(390, 844, 'light', clustered)
  for (const [how, state] of [
    ['stop', 'stopped'],
    ['slow', 'slow'],
  ] as const) {
    await page.getByRole('button', { name: `${how} storage-2`, exact: true }).click(patience)
    await page.getByTestId('storage-2').getByText(state, { exact: true }).first().waitFor(patience)
    expect(await page.getByTestId('accepts').textContent()).toContain('yes')
    await press(page, 'Pay')
    await numberIs(page, 'booked', 1)
    if (how === 'stop') await shot(page, 'cluster-390')
    await page.getByTestId('storage-2').locator('mark', { hasText: 'serving' }).waitFor(patience)
    await press(page, 'New order')
  }
  await page.getByRole('button', { name: 'kill proxy-1', exact: true }).click(patience)
  await press(page, 'Pay')
  await numberIs(page, 'booked', 1)
  expect(await overflow(page)).toBe(0)
  await page.close()
})

test('the page asks nobody but its own address, and throws nothing (G29)', () => {
  expect(strangers).toEqual([])
  expect(errors).toEqual([])
})
