/**
 * `npm run settings:update` writes docs/settings.md from the table in server/run/settings.ts; test/docs/settings.test.ts holds the two equal.
 * Invariant: the document has every setting and nothing that the table does not say.
 * Why generated: a setting is a flag, a variable and a line of a file, and nobody would write all three right by hand.
 */
import { writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** What of a policy and of a file people ask first. */
const head = `# Settings

<!-- Written by \`npm run settings:update\` from server/run/settings.ts. Change it there. -->

Of \`hapax serve storage\` and \`hapax serve proxy\`. A flag wins over the environment, that over the file (\`--config\`, TOML), and that over the default;
\`hapax config print-proxy\` and \`print-storage\` say which it was. What is not known is an error with its place, in the environment a warning. Secrets stand in files of their own.

\`\`\`toml
cluster = "shop"
name = "storage-1"
zone = 1
listen = "10.0.0.11:5081"
data = "/var/lib/hapax"

[tls]
ca = "/etc/hapax/ca.crt"
cert = "/etc/hapax/storage-storage-1.crt"
key = "/etc/hapax/storage-storage-1.key"

[map]
etcd = ["https://10.0.0.2:2379", "https://10.0.0.3:2379", "https://10.0.0.4:2379"]
ca = "/etc/hapax/etcd-ca.crt"
cert = "/etc/hapax/etcd-client.crt"
key = "/etc/hapax/etcd-client.key"
copy = "/var/lib/hapax/map-copy.json"
\`\`\`

Certificates, the policy and the key file are read anew while the process runs, within some seconds of a change; a file that makes no sense changes nothing and is told.
`

const policy = `## The policy

Of a proxy: who may do what. The first rule that fits client, namespace and verb decides, and what none allows is refused. \`*\` at the end of a name stands for any rest.

\`\`\`toml
preset = "wide"                      # or "juno": its limits, and 30 minutes to live where nothing is said

[[rule]]
clients = ["payments"]               # as their certificates have it
namespaces = ["pay*"]

[[rule]]
clients = ["reports"]
namespaces = ["*"]
verbs = ["get"]
requests-per-second = 500            # of one client, in one proxy

[[namespace]]
name = "pay*"
value-bytes-max = 65536
ttl-max = "30d"
ttl-default = "24h"
version-max = 65535                  # the last version that clients of JunoDB's are told before 1 comes again; else 4294967295
requests-per-second = 20000          # of all together, in one proxy
\`\`\`
`

const durationText = (ms) => (ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`)

const kinds = {
  text: () => 'text',
  list: () => 'list',
  flag: () => 'true, false',
  whole: ({ least, most }) => `${least} to ${most}`,
  duration: ({ leastMs, mostMs }) => `${durationText(leastMs)} to ${durationText(mostMs)}`,
  choice: ({ of }) => of.join(', '),
}

/** @returns {string} docs/settings.md */
export function settingsMarkdown(settings, { flagOf, variableOf }) {
  const rows = (role) =>
    Object.entries(settings)
      .filter(([, row]) => row.role === role)
      .map(([name, { kind, what, initial }]) => {
        const isNone = initial === undefined || (Array.isArray(initial) && initial.length === 0)
        const shown = isNone ? '' : `\`${kind.type === 'duration' ? durationText(initial) : initial}\``
        return `| \`${name}\` | \`${flagOf(name)}\` | \`${variableOf(name)}\` | ${kinds[kind.type](kind)} | ${shown} | ${what} |`
      })
  const table = (title, role) => [
    `## ${title}`,
    '',
    '| in the file | flag | environment | value | default | |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows(role),
    '',
  ]
  return [head, ...table('Of both', undefined), ...table('Of a storage server', 'storage'), ...table('Of a proxy', 'proxy'), policy].join(
    '\n',
  )
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { build } = await import('./build.mjs')
  await build()
  const { settings, ...names } = await import(new URL('../dist/server/run/settings.js', import.meta.url).href)
  writeFileSync(fileURLToPath(new URL('../docs/settings.md', import.meta.url)), settingsMarkdown(settings, names))
  console.log(`docs/settings.md has ${Object.keys(settings).length} settings`)
}
