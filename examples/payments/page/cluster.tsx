/**
 * The cluster under the shop: its processes, buttons that kill, stop and slow them, and a crowd that pays meanwhile.
 * Invariant: what is said of a process comes from its supervisor, what was charged from the bank.
 */
import { useEffect, useState } from 'preact/hooks'
import { attackMember, ledgerOf, membersOf, rush, type Member } from './client.ts'
import { Proof, usePress } from './panels.tsx'

const everyMs = 500
const payers = 100

/** @returns undefined where the shop keeps its data in its own process */
export function useMembers(): readonly Member[] | undefined {
  const [members, setMembers] = useState<readonly Member[]>([])
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined
    let isOver = false
    const look = async (): Promise<void> => {
      const found = await membersOf().catch(() => undefined)
      if (isOver) return
      if (found !== undefined) setMembers(found)
      // Whether there is one does not change while the page is open.
      if (found?.length !== 0) timer = setTimeout(() => void look(), everyMs)
    }
    void look()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }, [])
  return members.length === 0 ? undefined : members
}

export function ClusterPanel({ number, members }: { readonly number: number; readonly members: readonly Member[] }) {
  const [paid, setPaid] = useState<{ answered: number; other: number; slowestMs: number; charges: number }>()
  const { busy, fault, press } = usePress()
  const storage = members.filter(({ role }) => role === 'storage')
  const serving = storage.filter(({ state }) => state === 'serving' || state === 'slow').length
  const accepts = serving > storage.length / 2

  const payAll = async (): Promise<void> => {
    setPaid(undefined)
    const victim = storage.find(({ state }) => state === 'serving')
    const before = await ledgerOf('')
    const { byStatus, slowestMs } = await rush(victim?.name ?? '')
    const after = await ledgerOf('')
    const answered = byStatus['201'] ?? 0
    setPaid({ answered, other: payers - answered, slowestMs, charges: (after?.charges ?? 0) - (before?.charges ?? 0) })
  }
  return (
    <section class="wide" aria-labelledby="cluster">
      <h2 id="cluster">
        <i>{number}</i> Cluster
      </h2>
      <p>
        The shop keeps its data on {storage.length} storage servers behind {members.length - storage.length} proxies. Any one of them may
        fail: what was acknowledged stays, and paying goes on.
      </p>
      <div class="slip">
        <div>
          <p class="total">
            writes accepted:{' '}
            <b data-testid="accepts">
              {accepts ? 'yes' : 'no'} ({serving} of {storage.length})
            </b>
          </p>
          <p class="total">
            <b data-testid="rush-paid">{paid?.answered ?? 0}</b> of {payers} paid, <b data-testid="rush-failed">{paid?.other ?? 0}</b> not;
            the slowest waited {paid?.slowestMs ?? 0} ms
          </p>
        </div>
        <Proof id="rush-charges" value={paid?.charges ?? 0} isWrong={paid !== undefined && paid.charges !== paid.answered}>
          charges more in the bank's ledger
        </Proof>
      </div>
      <ul class="members">
        {members.map(({ name, role, pid, address, state }) => (
          <li key={name} data-testid={name}>
            <b>{name}</b>
            <span>
              <mark class={state}>{state}</mark>{' '}
              <small>
                pid <em>{pid}</em>, {address}
              </small>
            </span>
            <span class="buttons danger">
              {(role === 'storage' ? (['kill', 'stop', 'slow'] as const) : (['kill'] as const)).map((how) => (
                <button key={how} disabled={state !== 'serving'} aria-label={`${how} ${name}`} onClick={() => void attackMember(name, how)}>
                  {how}
                </button>
              ))}
            </span>
          </li>
        ))}
      </ul>
      <div class="buttons">
        <button disabled={busy} onClick={press(payAll)}>
          {payers} pay while a storage server is killed
        </button>
      </div>
      <p class="fault">{fault}</p>
    </section>
  )
}
