/** `convert`: plans parameters, replaces attention, verifies the result and only then writes it. */
import { statSync } from 'node:fs';
import path from 'node:path';
import type { Bound, TaskMetric } from '../calibrate/judge.js';
import { planParameters, type Plan } from '../calibrate/plan.js';
import type { Conversion, Mode } from '../conversion.js';
import { convert, openModel, type Model } from '../index.js';
import { writePieces } from '../onnx/file.js';
import { REASONS, type ReasonCode } from '../reasons.js';
import type { ReportInput } from '../report/report-input.js';
import { openRuntime, type Runtime } from '../verify/runtime.js';
import { variantOf } from '../verify/variant.js';
import type { Verification } from '../verify/verification.js';
import { exchangedOriginal, ModelRefused, verify, type VerifyRequest } from '../verify/verify.js';
import { calibrationText, foldingText } from './calibration-text.js';
import { EXIT, Failure, fileErrorText, modelFailure, runtimeErrorText, type ExitCode } from './failure.js';
import {
  checkWritable,
  copyExternalFiles,
  externalLocations,
  openModelOrFail,
  refuseSame,
  totalBytes,
} from './model-file.js';
import { taskMetric, type MetricResult } from './metric.js';
import { Progress } from './progress.js';
import { writeReport } from './report-file.js';
import { runFailure } from './run-failure.js';
import { short } from './table.js';
import { jsonText, verificationText } from './verify-text.js';

export interface ConvertCommandOptions {
  readonly output: string;
  readonly mode: Mode;
  readonly data?: string;
  readonly keep?: number | 'auto';
  readonly within?: Bound;
  readonly metric?: string;
  readonly emit: 'operator' | 'decomposed';
  readonly copyExternalData?: boolean;
  readonly seed: number;
  readonly report?: string;
  readonly json?: boolean;
}

/** Larger models are only verified where the user gives inputs: running them takes their whole size in memory. */
const VERIFY_UNASKED_BYTES = 2 ** 30;

export async function convertCommand(file: string, options: ConvertCommandOptions): Promise<ExitCode> {
  checkOptions(file, options);
  const runtime = memoised(openRuntime);
  const metric =
    options.metric === undefined ? null : await taskMetric(options.metric, folderOf(file), runtime);
  const { model, close } = openModelOrFail(file);
  const progress = new Progress();
  try {
    checkExternalData(file, model, options);
    const plan = await plannedParameters(file, model, options, runtime, metric, progress);
    const conversion = converted(file, model, options.mode, plan);
    if (conversion.replaced.length === 0) {
      reportNothing(file, conversion, plan, options);
      return EXIT.nothingToConvert;
    }
    const work = { file, model, conversion, plan, options, runtime, metric, progress };
    const outcome = { ...(await verified(work)), metric: await measuredMetric(work) };
    const { verification } = outcome;
    const output = await outputPieces(work);
    progress.clear();
    if (verification && !verification.passed) {
      if (options.json) console.log(jsonText(summary(work, outcome, null)));
      else console.log(verificationText(verification));
      throw new Failure(`${verification.verdict}; nothing was written`, EXIT.verificationFailed);
    }
    if (options.copyExternalData) copyExternalFiles(file, model, options.output);
    write(options.output, output, progress);
    if (options.report !== undefined) writeReport(options.report, reportInput(work, outcome));
    if (options.json) {
      console.log(jsonText(summary(work, outcome, options.output)));
    } else print(work, outcome);
    return EXIT.done;
  } finally {
    progress.clear();
    close();
  }
}

interface Outcome {
  readonly verification: Verification | null;
  /** Why nothing was verified. */
  readonly unverified: string | null;
  readonly metric: MetricResult | null;
}

interface Work {
  readonly file: string;
  readonly model: Model;
  readonly conversion: Conversion;
  readonly plan: Plan;
  readonly options: ConvertCommandOptions;
  readonly runtime: () => Promise<Runtime>;
  readonly metric: TaskMetric | null;
  readonly progress: Progress;
}

function checkOptions(file: string, options: ConvertCommandOptions): void {
  const { output, report, mode, keep, within, metric } = options;
  checkWritable(output, [file], 'output');
  if (report !== undefined) {
    checkWritable(report, [file], 'report');
    refuseSame(report, [output], 'report', 'output');
  }
  if (keep !== undefined && mode !== 'calibrated') {
    throw new Failure(`--keep needs --mode calibrated, found ${mode}`, EXIT.usage);
  }
  if (within !== undefined && keep !== 'auto') {
    throw new Failure(`--within needs --keep auto, found ${keep ?? 'no --keep'}`, EXIT.usage);
  }
  if (keep === 'auto' && metric !== undefined && within === undefined) {
    throw new Failure('--keep auto with --metric needs --within: how far the metric may move', EXIT.usage);
  }
}

/** A model's external data is found relative to the model, so it cannot be referred to from another folder. */
function checkExternalData(
  file: string,
  model: Model,
  { output, report, copyExternalData: copy }: ConvertCommandOptions,
): void {
  const locations = externalLocations(model);
  const folders = copy ? [folderOf(file), folderOf(output)] : [folderOf(file)];
  const data = folders.flatMap((folder) => locations.map((location) => path.join(folder, location)));
  refuseSame(output, data, 'output', "model's external data");
  if (report !== undefined) refuseSame(report, data, 'report', "model's external data");
  if (locations.length === 0 || copy || sameFolder(file, output)) return;
  throw new Failure(
    `output ${output}: the model keeps its numbers in ${locations.join(', ')} beside it; ` +
      'write into the same folder or pass --copy-external-data',
    EXIT.usage,
  );
}

const folderOf = (file: string): string => path.dirname(path.resolve(file));
const sameFolder = (a: string, b: string): boolean => folderOf(a) === folderOf(b);

function memoised<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => (made ??= make());
}

async function plannedParameters(
  file: string,
  model: Model,
  options: ConvertCommandOptions,
  runtime: () => Promise<Runtime>,
  metric: TaskMetric | null,
  progress: Progress,
): Promise<Plan> {
  try {
    return await planParameters({
      placed: { model, folder: folderOf(file) },
      mode: options.mode,
      runtime,
      ...(options.data === undefined ? {} : { data: options.data }),
      ...(options.keep === undefined ? {} : { keep: options.keep }),
      ...(options.within === undefined ? {} : { within: options.within }),
      ...(metric === null ? {} : { metric }),
      seed: options.seed,
      unmeasuredIsFine: totalBytes(file, model) > VERIFY_UNASKED_BYTES,
      progress: (label, fraction) => progress.show(label, fraction),
    });
  } catch (error) {
    throw error instanceof Failure ? error : runFailure(error, options.data);
  }
}

function converted(file: string, model: Model, mode: Mode, plan: Plan): Conversion {
  try {
    return convert(model, {
      mode,
      parameters: ({ name }) => plan.parameters.get(name),
      sites: ({ name }) => plan.left.get(name) ?? true,
    });
  } catch (error) {
    throw modelFailure(file, error);
  }
}

function requestOf({ file, model, conversion, plan, options, progress }: Work): VerifyRequest {
  return {
    original: { model, folder: folderOf(file) },
    converted: { model: openModel(conversion.toBytes(), model.external), folder: folderOf(file) },
    mode: options.mode,
    replaced: conversion.replaced,
    parametersOf: (site) => plan.parameters.get(site),
    ...(options.data === undefined ? {} : { data: options.data, limit: 32 }),
    seed: options.seed,
    progress: (label, fraction) => progress.show(label, fraction),
  };
}

async function verified(work: Work): Promise<Pick<Outcome, 'verification' | 'unverified'>> {
  const { file, model, options, runtime } = work;
  const bytes = totalBytes(file, model);
  if (options.data === undefined && bytes > VERIFY_UNASKED_BYTES) {
    const size = (bytes / 2 ** 30).toFixed(1);
    return {
      verification: null,
      unverified: `the model has ${size} GiB; give inputs with --data to verify it`,
    };
  }
  try {
    return { verification: await verify(requestOf(work), await runtime()), unverified: null };
  } catch (error) {
    return { verification: null, unverified: unverifiedBecause(error, options) };
  }
}

async function measuredMetric({ model, conversion, metric }: Work): Promise<MetricResult | null> {
  if (metric === null) return null;
  const original = await metric.score(variantOf(model, {}));
  return { name: metric.name, original, converted: await metric.score(conversion.toBytes()) };
}

/** Why a model cannot be run here though it may be right; anything else is a failure. */
function unverifiedBecause(error: unknown, options: ConvertCommandOptions): string {
  const text = runtimeErrorText(error);
  if (error instanceof ModelRefused && error.side === 'converted') {
    throw new Failure(
      `verification failed: ONNX Runtime refuses the converted model (${text}); nothing was written`,
      EXIT.verificationFailed,
      { cause: error },
    );
  }
  const foreign = /is not a registered function\/op|No opset import for domain|not implemented/i.test(text);
  if (foreign || (options.data === undefined && /^no sample data was given|needs the package/.test(text)))
    return text;
  throw runFailure(error, options.data);
}

async function outputPieces(work: Work): Promise<Iterable<Uint8Array>> {
  if (work.options.emit === 'operator') return work.conversion.pieces();
  try {
    return [await exchangedOriginal(requestOf(work), await work.runtime())];
  } catch (error) {
    throw runFailure(error, work.options.data);
  }
}

function write(output: string, pieces: Iterable<Uint8Array>, progress: Progress): void {
  try {
    writePieces(output, pieces, (bytes) => progress.show(`writing ${(bytes / 2 ** 20).toFixed(0)} MiB`, 0));
  } catch (error) {
    throw new Failure(`output ${output}: cannot be written, ${fileErrorText(error)}`, EXIT.usage, {
      cause: error,
    });
  } finally {
    progress.clear();
  }
}

function summary(
  { file, conversion, plan, options }: Work,
  { verification, unverified, metric }: Outcome,
  output: string | null,
): object {
  return {
    model: file,
    mode: options.mode,
    replaced: conversion.replaced.length,
    refused: conversion.refused.map(({ name, reason, detail }) => ({ name, reason, detail })),
    output,
    sites: conversion.replaced.map(({ site, node, attributes, foldings }) => ({
      name: site.name,
      node,
      attributes,
      foldings,
    })),
    calibration: plan.calibration,
    notes: plan.notes,
    metric,
    verify: verification,
    unverified,
  };
}

function reportInput(work: Work, { verification, unverified, metric }: Outcome): ReportInput {
  const { file, model, conversion, plan, options } = work;
  return {
    file: path.basename(file),
    model,
    inspection: conversion.inspection,
    result: {
      mode: options.mode,
      output: path.basename(options.output),
      conversion,
      converted: openModel(conversion.toBytes(), model.external),
      plan,
      verification,
      unverified,
      metric,
    },
  };
}

function reportNothing(
  file: string,
  conversion: Conversion,
  plan: Plan,
  options: ConvertCommandOptions,
): void {
  const { refused } = conversion;
  if (options.json) {
    console.log(
      jsonText({
        model: file,
        mode: options.mode,
        replaced: 0,
        refused: refused.map(({ name, reason, detail }) => ({ name, reason, detail })),
        output: null,
        verify: null,
      }),
    );
  }
  const named = new Map<ReasonCode, string[]>();
  for (const { name, reason } of refused) named.set(reason, [...(named.get(reason) ?? []), name]);
  const measured = [...plan.left.values()].slice(0, 1).map(({ detail }) => ` (${detail})`);
  const why = [...named]
    .map(([reason, names]) => {
      const detail = reason === 'score-range' ? measured.join('') : '';
      return `${someOf(names)}: ${REASONS[reason]}${detail}`;
    })
    .join('; ');
  const hint = named.has('mode') ? ' (faithful, paper and calibrated convert softmax)' : '';
  process.stderr.write(
    `nothing to convert in ${file} with --mode ${options.mode}${why === '' ? ': no attention found' : `: ${why}${hint}`}\n`,
  );
}

const NAMED_SITES = 3;

/** The first names, and how many follow. */
function someOf(names: readonly string[]): string {
  const rest = names.length - NAMED_SITES;
  const first = names.slice(0, rest > 1 ? NAMED_SITES : names.length).join(', ');
  return rest > 1 ? `${first} and ${rest} more` : first;
}

function print(work: Work, { verification, unverified, metric }: Outcome): void {
  const { conversion, options, plan } = work;
  const total = conversion.replaced.length + conversion.refused.length;
  console.log(`Replaced ${conversion.replaced.length} of ${total} attention sites, mode ${options.mode}.`);
  for (const { name, reason, detail } of conversion.refused) {
    const measured = plan.left.has(name) ? ` (${detail})` : '';
    console.log(`  kept ${name}: ${REASONS[reason]}${measured}`);
  }
  if (plan.calibration) {
    console.log(`\n${calibrationText(plan.calibration)}`);
  }
  const folding = foldingText(conversion.replaced);
  if (folding !== '') console.log(`\n${folding}`);
  for (const note of plan.notes) console.log(`Note: ${note}.`);
  if (verification) console.log(`\n${verificationText(verification)}`);
  else console.log(`\nNot verified: ${unverified ?? ''}.`);
  if (metric) {
    const { name, original, converted } = metric;
    console.log(
      `${name}: ${short(original)} original, ${short(converted)} converted (${short(converted - original)}).`,
    );
  }
  console.log(`Wrote ${options.output} (${(statSync(options.output).size / 1e6).toFixed(1)} MB).`);
}
