/**
 * Each link of the documents to a file of this repository leads to one, and to a heading that is there.
 * Why no links to elsewhere: a test must not fail because somebody else's server does.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const skipped = /^(node_modules|dist|bench\/node_modules|\.)/
const pages = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => path.endsWith('.md') && !skipped.test(path) && !path.includes('/node_modules/'))
  .map((path) => join(root, path))

const withoutCode = (markdown: string): string => markdown.replaceAll(/^```[\s\S]*?^```/gm, '')

/** As GitHub makes them of headings. */
export const anchorsOf = (markdown: string): string[] =>
  [...withoutCode(markdown).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )

function brokenIn(page: string): string[] {
  return [...withoutCode(readFileSync(page, 'utf8')).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .filter((target) => {
      const [path = '', anchor] = target.split('#')
      const file = path === '' ? page : resolve(dirname(page), path)
      if (!existsSync(file)) return true
      return anchor !== undefined && !anchorsOf(readFileSync(file, 'utf8')).includes(anchor)
    })
}

test.each(pages.map((page) => relative(root, page)))('the links of %s lead somewhere', (page) => {
  expect(brokenIn(join(root, page))).toEqual([])
})

test('anchors are those that GitHub makes', () => {
  expect(anchorsOf('# `hapax:a`, and More?\n\n```sh\n# none\n```\n## two_b - c\n')).toEqual(['hapaxa-and-more', 'two_b---c'])
})
