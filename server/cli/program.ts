/**
 * The command line: which commands there are, what they take, and what they end with.
 * Invariant: nothing secret is an argument; whatever is wrong is said with a hint, and ends with a documented code.
 */
import { Command, CommanderError, Option } from 'commander'
import { addBench } from './bench.ts'
import { addCertificates } from './certificates.ts'
import { addDev } from './dev.ts'
import { addExplain } from './explain.ts'
import { exitCodes, failed, outputOf, type ExitCode, type Io, type Output } from './output.ts'
import { addInspect } from './inspect.ts'
import { addServe } from './serve.ts'
import { addStatus } from './status.ts'
import { addVerbs } from './verbs.ts'

/** @param args without the names of the interpreter and the file @returns the exit code */
export async function runCommand(args: readonly string[], io: Io, version: string): Promise<ExitCode> {
  let code: ExitCode = exitCodes.done
  const program = new Command('hapax')
  const output = (): Output => outputOf(io, program.opts<{ output: string }>().output === 'json')
  const run = async (work: (output: Output) => Promise<ExitCode>): Promise<void> => {
    code = await work(output()).catch((error: unknown) => failed(output(), error))
  }
  program
    .description('idempotency keys, counters, limits and caches; and the cluster that they may stand on')
    .version(version)
    .addOption(new Option('-o, --output <how>', 'what is printed').choices(['text', 'json']).default('text'))
    .showHelpAfterError('(--help says what there is)')
    .configureOutput({ writeOut: io.out, writeErr: io.err })
    .exitOverride()
    .addHelpText(
      'after',
      `\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 there is no such entry, 4 refused, 5 it may have happened or not, 70 a process stopped itself\n`,
    )
  addDev(program, io, run)
  addServe(program, io, version, run)
  addVerbs(program, io, run)
  addStatus(program, io, run)
  addBench(program, io, version, run)
  addCertificates(program, run)
  addExplain(program, run)
  addInspect(program, io, run)
  // -o may stand before or after the command.
  for (const command of program.commands) inherit(command, program)
  try {
    await program.parseAsync([...args], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) return failed(output(), error)
    return error.exitCode === 0 ? exitCodes.done : exitCodes.usage
  }
  return code
}

function inherit(command: Command, program: Command): void {
  command.exitOverride().configureOutput(program.configureOutput()).showHelpAfterError('(--help says what there is)')
  command.addOption(new Option('-o, --output <how>', 'what is printed').choices(['text', 'json']).hideHelp())
  command.hook('preAction', (_, action) => {
    const { output } = action.opts<{ output?: string }>()
    if (output !== undefined) program.setOptionValue('output', output)
  })
  for (const child of command.commands) inherit(child, program)
}
