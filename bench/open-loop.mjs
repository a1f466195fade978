/**
 * Asks an HTTP route at a fixed rate, from a process of its own, and prints its latencies as JSON: `node open-loop.mjs PORT RATE MS`.
 * Invariant: a latency counts from the instant at which the request was due, so a server that stalls cannot hide the ones it held up
 * (coordinated omission). Why another process: a client in the server's own loop would wait with it and see nothing.
 */
import { Agent, get } from 'node:http'
import { performance } from 'node:perf_hooks'

const [port, rate, ms] = process.argv.slice(2).map(Number)
const agent = new Agent({ keepAlive: true, maxSockets: 64 })
const total = Math.floor((rate * ms) / 1000)
const latencies = []
let [sent, failed] = [0, 0]

const ask = (due) =>
  new Promise((resolve) => {
    const settle = (right) => {
      latencies.push(performance.now() - due)
      if (!right) failed += 1
      resolve()
    }
    get({ host: '127.0.0.1', port, path: '/', agent }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => (body += chunk))
      response.on('end', () => settle(response.statusCode === 200 && body === 'ok'))
    }).on('error', () => settle(false))
  })

/** The first requests open connections and compile code: not counted. */
await Promise.all(Array.from({ length: 20 }, () => ask(performance.now())))
latencies.length = 0

const asked = []
const start = performance.now()
await new Promise((resolve) => {
  const timer = setInterval(() => {
    while (sent < total && start + (sent * 1000) / rate <= performance.now()) {
      asked.push(ask(start + (sent * 1000) / rate))
      sent += 1
    }
    if (sent < total) return
    clearInterval(timer)
    resolve()
  }, 1)
})
await Promise.all(asked)
agent.destroy()
latencies.sort((left, right) => left - right)
const at = (quantile) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * quantile))]
console.log(JSON.stringify({ requests: latencies.length, failed, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }))
