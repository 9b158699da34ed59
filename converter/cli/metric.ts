/** Scores models on their task through a module of the user's. */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { TaskMetric } from '../calibrate/judge.js';
import type { Feeds } from '../data/tensor.js';
import type { Outputs, Runtime, Session } from '../verify/runtime.js';
import { EXIT, Failure, fileErrorText } from './failure.js';

/** What a metric module exports as `metric`: runs the model as it likes and returns one number. */
export type Metric = (model: {
  readonly inputs: Session['inputs'];
  readonly outputs: readonly string[];
  readonly run: (feeds: Feeds) => Promise<Outputs>;
}) => number | Promise<number>;

export interface MetricResult {
  /** The module's export `metricName`, or its file name. */
  readonly name: string;
  readonly original: number;
  readonly converted: number;
}

/** Loads the module's `metric`; throws a Failure with exit code 1 where there is none. */
export async function loadMetric(
  file: string,
): Promise<{ name: string; better: TaskMetric['better']; metric: Metric }> {
  let loaded: Record<string, unknown>;
  try {
    loaded = (await import(pathToFileURL(path.resolve(file)).href)) as Record<string, unknown>;
  } catch (error) {
    const text = fileErrorText(error).split('\n')[0]!;
    throw new Failure(`metric ${file}: cannot be loaded, ${text}`, EXIT.usage, { cause: error });
  }
  const { metric, metricName, metricBetter = null } = loaded;
  if (typeof metric !== 'function') {
    throw new Failure(`metric ${file}: the module must export a function "metric"`, EXIT.usage);
  }
  if (metricBetter !== null && metricBetter !== 'higher' && metricBetter !== 'lower') {
    throw new Failure(
      `metric ${file}: metricBetter is ${JSON.stringify(metricBetter)}; "higher" or "lower" is allowed`,
      EXIT.usage,
    );
  }
  const name = typeof metricName === 'string' ? metricName : path.basename(file);
  return { name, better: metricBetter, metric: metric as Metric };
}

/** The module's metric on the bytes of any model whose external data lies in `folder`. */
export async function taskMetric(
  file: string,
  folder: string,
  runtime: () => Promise<Runtime>,
): Promise<TaskMetric> {
  const { name, better, metric } = await loadMetric(file);
  const score = async (model: Uint8Array): Promise<number> => {
    const session = await (await runtime()).open(model, folder);
    try {
      const { inputs, outputs } = session;
      const value: unknown = await metric({ inputs, outputs, run: (feeds) => session.run(feeds) });
      if (typeof value !== 'number') throw new Error(`returned ${typeof value}, a number is needed`);
      return value;
    } catch (error) {
      throw new Failure(`metric ${file}: ${(error as Error).message}`, EXIT.usage, { cause: error });
    } finally {
      await session.close();
    }
  };
  return { name, better, score };
}
