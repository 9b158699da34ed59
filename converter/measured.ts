/**
 * Converting with parameters that were measured: what the command line does, for programs on Node. Needs onnxruntime-node.
 * `convert` alone never runs a model; in mode `faithful` it takes a bias of -40, which keeps softmax's weights where
 * every row's largest score lies in [-31, 30]. Here the model is run to see whether it does.
 */
import { planParameters, type Plan, type PlanRequest } from './calibrate/plan.js';
import type { Conversion, ConvertOptions } from './conversion.js';
import { convert, type Model } from './index.js';
import { openRuntime } from './verify/runtime.js';

export type { Plan, CalibrationAccount, Choice } from './calibrate/plan.js';
export type { SiteFit, SiteForm } from './calibrate/fit-site.js';
export type { Bound, TaskMetric } from './calibrate/judge.js';
export { openModelFile } from './onnx/file.js';

/** Of {@link convertMeasured}: those of a conversion, and where samples come from. */
export interface MeasuredOptions
  extends
    Pick<ConvertOptions, 'mode' | 'sites' | 'withoutFunction'>,
    Pick<PlanRequest, 'data' | 'source' | 'keep' | 'within' | 'metric' | 'progress'> {
  /** Folder of the model's external data; the working directory when absent. */
  readonly folder?: string;
  /** Of random inputs and of sampling; 1 when absent. */
  readonly seed?: number;
}

export interface MeasuredConversion {
  readonly conversion: Conversion;
  /** Parameters by site, the account of the fit, and notes that a person should read. */
  readonly plan: Plan;
}

/**
 * Converts a model as the command line does: parameters from sample inputs, or from random ones where there are none.
 * @throws Error in one sentence where onnxruntime-node is missing, samples do not suit the model or the model does not run
 */
export async function convertMeasured(model: Model, options: MeasuredOptions): Promise<MeasuredConversion> {
  const { mode, sites, withoutFunction, folder = '.', seed = 1, ...planned } = options;
  const plan = await planParameters({
    ...planned,
    placed: { model, folder },
    mode,
    seed,
    runtime: () => openRuntime(),
  });
  const conversion = convert(model, {
    mode,
    parameters: ({ name }) => plan.parameters.get(name),
    sites: (site) => {
      const wanted = sites?.(site) ?? true;
      return wanted === true ? (plan.left.get(site.name) ?? true) : wanted;
    },
    ...(withoutFunction === undefined ? {} : { withoutFunction }),
  });
  return { conversion, plan };
}
