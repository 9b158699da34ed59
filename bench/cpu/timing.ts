/** Interleaved timing of sessions in one process. */
import * as ort from 'onnxruntime-node';

export interface Competitor {
  readonly name: string;
  readonly session: ort.InferenceSession;
  readonly feeds: Record<string, ort.Tensor>;
}

export interface Times {
  readonly name: string;
  /** Seconds of each round; the same round of two competitors lies close together in time. */
  readonly seconds: readonly number[];
}

/** Wall time, or the CPU time of the process: the latter stays right when other programs take the processor. */
export type Clock = 'wall' | 'cpu';

export async function openSession(model: Uint8Array, threads: number): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(model, {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
    // A pool that keeps spinning after its run would disturb the next competitor.
    extra: { session: { force_spinning_stop: '1' } },
  });
}

function now(clock: Clock): number {
  if (clock === 'wall') return Number(process.hrtime.bigint()) * 1e-9;
  const { user, system } = process.cpuUsage();
  return (user + system) * 1e-6;
}

async function timeOnce({ session, feeds }: Competitor, clock: Clock): Promise<number> {
  const begin = now(clock);
  await session.run(feeds);
  return now(clock) - begin;
}

/** Rounds in which everyone runs once, in an order that turns; at least `seconds` long and 7 rounds. */
export async function race(
  competitors: readonly Competitor[],
  clock: Clock,
  seconds: number,
): Promise<Times[]> {
  const times = competitors.map((): number[] => []);
  for (const competitor of competitors) await timeOnce(competitor, clock);
  const begin = now('wall');
  for (let round = 0; round < 7 || now('wall') - begin < seconds; round++) {
    for (let turn = 0; turn < competitors.length; turn++) {
      const who = (round + turn) % competitors.length;
      times[who]!.push(await timeOnce(competitors[who]!, clock));
    }
    if (round >= 200) break;
  }
  return competitors.map(({ name }, i) => ({ name, seconds: times[i]! }));
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Median over the rounds of `other`'s time / `mine`: how many times faster `mine` is. */
export function pairedRatio(mine: Times, other: Times): number {
  return median(mine.seconds.map((seconds, round) => other.seconds[round]! / seconds));
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
