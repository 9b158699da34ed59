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

export interface Race {
  readonly results: readonly Result[];
  /** Between the quartiles of the rounds, relative to the median: of the contender where it is widest. */
  readonly spread: number;
}

/** Above it a race was disturbed. */
const STEADY_SPREAD = 0.15;
const ATTEMPTS = 2;

/** Races until one was not disturbed, twice at most; the steadiest. `prepare` runs before each. */
export async function steadyRace(
  contenders: readonly Contender[],
  rounds: number,
  prepare: () => Promise<void> = () => Promise.resolve(),
): Promise<Race> {
  let best: Race | undefined;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    await prepare();
    const found = await race(contenders, rounds);
    if (best === undefined || found.spread < best.spread) best = found;
    if (best.spread <= STEADY_SPREAD) break;
  }
  return best!;
}

async function race(contenders: readonly Contender[], rounds: number): Promise<Race> {
  for (const { run, lengths } of contenders) for (const length of lengths) await run(length);
  const slopes: number[][] = contenders.map(() => []);
  for (let round = 0; round < rounds; round++)
    for (const [index, { run, lengths }] of contenders.entries()) {
      const [few, many] = lengths;
      // What the contender before it left to clean up is not its time.
      if (few > 0) await run(few);
      const short = few === 0 ? 0 : await run(few);
      const long = await run(many);
      slopes[index]!.push((long - short) / (many - few));
    }
  return {
    results: slopes.map((own) => ({
      milliseconds: quantile(own, 0.5),
      ratio: quantile(
        own.map((slope, round) => slope / slopes[0]![round]!),
        0.5,
      ),
    })),
    spread: Math.max(
      ...slopes.map((own) => (quantile(own, 0.75) - quantile(own, 0.25)) / quantile(own, 0.5)),
    ),
  };
}

function quantile(values: readonly number[], share: number): number {
  return [...values].sort((a, b) => a - b)[Math.round(share * (values.length - 1))]!;
}
