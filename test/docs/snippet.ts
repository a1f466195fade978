/**
 * The ```ts blocks of a document, with what stands before and after them in comments.
 * How to give a block what it needs: CONTRIBUTING.md, "Snippets".
 */
export interface Snippet {
  /** File and line, for people. */
  readonly name: string
  readonly code: string
  /** False for `<!-- ts compile-only: why -->`. */
  readonly runs: boolean
}

/** `before` and `after` blocks touch the fence, with at most one empty line between. */
const pattern =
  /(?:<!-- ts before\n(?<before>[\s\S]*?)-->\n\n?)?(?:<!-- ts (?<compileOnly>compile-only): [^\n]+ -->\n\n?)?^```ts\n(?<code>[\s\S]*?)^```$(?:\n\n?<!-- ts after\n(?<after>[\s\S]*?)-->)?/gm

export function snippetsOf(path: string, markdown: string): Snippet[] {
  return [...markdown.matchAll(pattern)].map((match) => {
    const { before = '', code = '', after = '', compileOnly } = match.groups ?? {}
    const line = markdown.slice(0, match.index + match[0].indexOf('```ts')).split('\n').length
    return { name: `${path}:${line}`, code: `${before}${code}${after}\nexport {}\n`, runs: compileOnly === undefined }
  })
}
