import { Transcript } from './transcript.ts'

/** Plays a whole file. @returns it with what came of each step */
export function play(text: string): string {
  const blocks = text.trimEnd().split(/\n\n+/)
  let transcript = new Transcript()
  const played = blocks.map((block) => {
    const lines = block.split('\n')
    const comments = lines.filter((line) => line.startsWith('#'))
    const at = lines.indexOf('----')
    const commands = (at < 0 ? lines : lines.slice(0, at)).filter((line) => !line.startsWith('#'))
    if (commands.length === 0) return block
    if (commands[0]?.startsWith('zones')) transcript = new Transcript()
    return [...comments, ...commands, '----', ...transcript.step(commands)].join('\n')
  })
  return `${played.join('\n\n')}\n`
}
