/** `inspect`: the attention sites of a model, the meaning of each, or why it cannot be replaced; with --stats, measured. */
import path from 'node:path';
import { measureModel, type Measured } from '../calibrate/plan.js';
import { inspect, type Model } from '../index.js';
import { openRuntime } from '../verify/runtime.js';
import { EXIT, Failure, modelFailure } from './failure.js';
import { inspectionText } from './inspect-text.js';
import { checkWritable, externalLocations, openModelOrFail, refuseSame } from './model-file.js';
import { Progress } from './progress.js';
import { writeReport } from './report-file.js';
import { runFailure } from './run-failure.js';
import { statisticsText } from './statistics-text.js';
import { jsonText } from './verify-text.js';

export interface InspectOptions {
  readonly json?: boolean;
  readonly stats?: boolean;
  readonly data?: string;
  readonly seed: number;
  readonly report?: string;
}

export async function inspectCommand(file: string, options: InspectOptions): Promise<void> {
  if (options.report !== undefined) checkWritable(options.report, [file], 'report');
  if (options.data !== undefined && !options.stats) throw new Failure('--data needs --stats', EXIT.usage);
  const { model, close } = openModelOrFail(file);
  try {
    if (options.report !== undefined) {
      const folder = path.dirname(path.resolve(file));
      const data = externalLocations(model).map((location) => path.join(folder, location));
      refuseSame(options.report, data, 'report', "model's external data");
    }
    const inspection = inspected(file, model);
    const measured = options.stats ? await measure(file, model, options) : null;
    if (options.report !== undefined) {
      const statistics = measured ? { statistics: measured.sites } : {};
      writeReport(options.report, { file: path.basename(file), model, inspection, ...statistics });
    }
    if (options.json) {
      console.log(jsonText({ model: file, ...inspection, ...(measured ? { statistics: measured } : {}) }));
      return;
    }
    console.log(inspectionText(file, inspection));
    if (measured) console.log(`\n${statisticsText(measured.samples, measured.sites)}`);
  } finally {
    close();
  }
}

function inspected(file: string, model: Model): ReturnType<typeof inspect> {
  try {
    return inspect(model);
  } catch (error) {
    throw modelFailure(file, error);
  }
}

async function measure(file: string, model: Model, { data, seed }: InspectOptions): Promise<Measured> {
  const progress = new Progress();
  try {
    return await measureModel({
      placed: { model, folder: path.dirname(path.resolve(file)) },
      runtime: openRuntime,
      ...(data === undefined ? {} : { data }),
      seed,
      progress: (label, fraction) => progress.show(label, fraction),
    });
  } catch (error) {
    throw runFailure(error, data);
  } finally {
    progress.clear();
  }
}
