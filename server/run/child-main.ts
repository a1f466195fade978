/** The file that a child process runs. */
import { runChild } from './child.ts'

runChild()
