/** `explain`: what an error means and what to do about it, by its number or its code. */
import type { Command } from 'commander'
import { errors } from '../../core/kv/errors.ts'
import { exitCodes, type ExitCode, type Output } from './output.ts'

const retries = {
  safe: 'nothing happened: send it again as you like',
  'same-request-id': 'it may have happened: only a repetition with the same request id, or a read, tells',
  never: 'the same call fails again',
}

export function addExplain(program: Command, run: (work: (output: Output) => Promise<ExitCode>) => Promise<void>): void {
  program
    .command('explain')
    .description('says what an error means and what to do about it')
    .argument('<error>', 'HPX-2001, or INVALID_ARGUMENT')
    .action((wanted: string) =>
      run(async (output) => {
        const name = wanted.toUpperCase()
        const found = Object.entries(errors).find(([code, { id }]) => code === name || id === name)
        if (found === undefined)
          return output.error(exitCodes.usage, `there is no error '${wanted}'`, { wanted }, 'docs/errors.md has all of them')
        const [code, { id, message, hint, retry }] = found
        output.result(`${id} ${code}\n  ${message}\n  what to do: ${hint}\n  again? ${retries[retry]}`, {
          ok: true,
          id,
          code,
          message,
          hint,
          retry,
        })
        return exitCodes.done
      }),
    )
}
