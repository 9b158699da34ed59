/** A task that a model is for: inputs to fit on, and a metric on data that fitting never saw. */
import type { Bound } from '../../converter/calibrate/judge.js';
import type { SampleSource } from '../../converter/data/source.js';
import type { Model } from '../../converter/index.js';
import type { Session } from '../../converter/verify/runtime.js';

export interface Score {
  /** In the task's metric. */
  readonly value: number;
  /** What the model decided, one entry a decision, to count those that differ from the original's. */
  readonly decisions: readonly (string | number)[];
}

export interface Task {
  /** Key in the summary. */
  readonly name: string;
  readonly metric: string;
  /** What the result of mode `calibrated` has to reach, and whether a pair of values does. */
  readonly goal: string;
  readonly reached: (original: number, calibrated: number) => boolean;
  /** The same goal as a bound on the metric. */
  readonly within: Bound;
  readonly better: 'higher' | 'lower';
  readonly model: Model;
  readonly folder: string;
  readonly fitting: SampleSource;
  /** On the data that was fitted, to choose how many sites stay faithful. */
  readonly scoreFitted: (session: Session) => Promise<Score>;
  readonly scoreJudged: (session: Session) => Promise<Score>;
  /** Sizes of both sets, for the table. */
  readonly fitted: string;
  readonly judged: string;
}

/** A source over runs that are in memory. */
export function sourceOf(description: string, runs: () => Iterable<SampleRun>): SampleSource {
  return {
    description,
    async *[Symbol.asyncIterator]() {
      yield* runs();
    },
  };
}

type SampleRun = SampleSource extends AsyncIterable<infer Feeds> ? Feeds : never;
