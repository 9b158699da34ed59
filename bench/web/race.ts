/**
 * Interleaved timing. The time of one repetition is the slope between a run of few and a run of many, so that copies from and
 * to the host cancel out; contenders take turns, so that changes of a GPU's clock reach all of them.
 */

/**
 * What is measured: wall time on a GPU; on a software adapter the processor time of all threads of this process, where the
 * shaders run, which other programs do not disturb.
 */
export const clock = { milliseconds: (): number => performance.now() };

export function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

export interface Contender {
  /** Milliseconds that this many repetitions take. */
  readonly run: (repetitions: number) => Promise<number>;
  /** Few and many. */
  readonly lengths: readonly [number, number];
}

export interface Result {
  /** Of one repetition: the median over the rounds. */
  readonly milliseconds: number;
  /** Its time over that of the first contender: the median over the rounds of the ratio within the round. */
  readonly ratio: number;
}

export async function race(contenders: readonly Contender[], rounds: number): Promise<Result[]> {
  for (const { run, lengths } of contenders) for (const length of lengths) await run(length);
  const slopes: number[][] = contenders.map(() => []);
  for (let round = 0; round < rounds; round++)
    for (const [index, { run, lengths }] of contenders.entries()) {
      const [few, many] = lengths;
      const short = await run(few);
      const long = await run(many);
      slopes[index]!.push((long - short) / (many - few));
    }
  return slopes.map((own) => ({
    milliseconds: median(own),
    ratio: median(own.map((slope, round) => slope / slopes[0]![round]!)),
  }));
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
