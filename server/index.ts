/** 'hapax/server': a whole cluster on this machine, for tests and for trying out. The processes of a real one are started by the command line. */
export { startDev, type DevCluster, type DevOptions, type DevProcess } from './run/dev.ts'
export type { Policy } from './proxy/policy.ts'
