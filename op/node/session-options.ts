/**
 * Session options of `InferenceSession.create`, checked as stock onnxruntime-node checks them (same order, same error
 * texts) and turned into settings for the addon. As there, an option that is present with the value undefined is wrong.
 */

import type { InferenceSession } from 'onnxruntime-common';
import type { Setting } from './native-addon.js';

const OPTIMIZATION_LEVELS: Readonly<Record<string, number>> = {
  disabled: 0,
  basic: 1,
  extended: 2,
  layout: 3,
  all: 99,
};
const EXECUTION_MODES: Readonly<Record<string, number>> = { sequential: 0, parallel: 1 };

const WEBGPU_STRINGS = [
  'preferredLayout',
  'validationMode',
  'weightLoadAcceleration',
  'storageBufferCacheMode',
  'uniformBufferCacheMode',
  'queryResolveBufferCacheMode',
  'defaultBufferCacheMode',
];
const WEBGPU_BOOLEANS = ['enableRobustness', 'enableMatmulFp32Accumulation'];

type Options = Readonly<Record<string, unknown>>;

/** Throws a TypeError, RangeError or Error in stock onnxruntime-node's words for an option it would refuse. */
export function sessionSettings(sessionOptions: InferenceSession.SessionOptions): Setting[] {
  const options = sessionOptions as Options;
  return [
    ...providers(options),
    ...threads(options),
    ...graph(options),
    ...extra(options),
    ...execution(options),
    ...logging(options),
    ...profiling(options),
    ...externalData(options),
    ...freeDimensions(options),
    ...outputLocation(options),
  ];
}

function invalid(option: string, must: string): TypeError {
  return new TypeError(`Invalid argument: sessionOptions.${option} must be ${must}`);
}

function* providers(options: Options): Generator<Setting> {
  if (!('executionProviders' in options)) return;
  const list = options.executionProviders;
  if (!Array.isArray(list)) throw invalid('executionProviders', 'an array.');
  for (const [i, entry] of (list as unknown[]).entries()) {
    const provider = typeof entry === 'string' ? { name: entry } : entry;
    if (!isObject(provider) || typeof provider.name !== 'string') {
      throw invalid(`executionProviders[${i}]`, "either a string or an object with property 'name'.");
    }
    yield* providerSettings(provider, provider.name, i);
  }
}

function* providerSettings(provider: Options, name: string, index: number): Generator<Setting> {
  switch (name) {
    case 'cpu':
      return;
    case 'cuda':
      yield ['provider', 'CUDA', device(provider)];
      return;
    case 'tensorrt':
      yield ['provider', 'TensorRT', device(provider)];
      return;
    case 'dml':
      yield ['provider', 'DML', device(provider)];
      return;
    case 'webgpu':
      yield ['provider', 'WebGPU', webgpu(provider)];
      return;
    case 'coreml':
      yield ['provider', 'CoreML', {}];
      return;
    case 'qnn':
      yield ['provider', 'QNN', qnn(provider)];
      return;
    default:
      throw new Error(
        `Invalid argument: sessionOptions.executionProviders[${index}] is unsupported: '${name}'.`,
      );
  }
}

/** Device 0 is ONNX Runtime's own default. */
function device({ deviceId }: Options): Record<string, string> {
  return typeof deviceId === 'number' && deviceId !== 0 ? { device_id: String(deviceId) } : {};
}

function webgpu(provider: Options): Record<string, string> {
  const settings: Record<string, string> = {};
  for (const [name, value] of Object.entries(provider)) {
    if (name === 'name') continue;
    if (WEBGPU_STRINGS.includes(name)) {
      if (typeof value !== 'string') throw new TypeError(`Invalid argument: "${name}" must be a string.`);
      settings[name] = value;
    } else if (WEBGPU_BOOLEANS.includes(name)) {
      if (typeof value !== 'boolean') throw new TypeError(`Invalid argument: "${name}" must be a boolean.`);
      settings[name] = value ? '1' : '0';
    } else if (name === 'forceCpuNodeNames') {
      settings[name] = stringList(name, value).join('\n');
    } else {
      throw new TypeError(`Invalid argument: WebGPU EP has an unrecognized option: '${name}'.`);
    }
  }
  return settings;
}

function stringList(name: string, value: unknown): string[] {
  if (!Array.isArray(value)) throw new TypeError(`Invalid argument: "${name}" must be a string array.`);
  if (!value.every((item) => typeof item === 'string')) {
    throw new TypeError(`Invalid argument: elements of "${name}" must be strings.`);
  }
  return value as string[];
}

function qnn(provider: Options): Record<string, string> {
  const settings: Record<string, string> = {};
  const { backendType, backendPath, enableFp16Precision } = provider;
  if (backendType !== undefined) settings.backend_type = String(backendType);
  if (backendPath !== undefined) settings.backend_path = String(backendPath);
  if (enableFp16Precision !== undefined)
    settings.enable_htp_fp16_precision = enableFp16Precision === true ? '1' : '0';
  return settings;
}

function* threads(options: Options): Generator<Setting> {
  for (const name of ['intraOpNumThreads', 'interOpNumThreads']) {
    if (!(name in options)) continue;
    const count = options[name];
    if (typeof count !== 'number') throw invalid(name, 'a number.');
    if (!Number.isInteger(count) || count < 0 || count > 0xffffffff) {
      throw new RangeError(`'${name}' is invalid: ${count}`);
    }
    yield [name, count];
  }
}

function* graph(options: Options): Generator<Setting> {
  if ('graphOptimizationLevel' in options) {
    yield ['graphOptimizationLevel', choice(options, 'graphOptimizationLevel', OPTIMIZATION_LEVELS)];
  }
  for (const [name, setting] of [
    ['enableCpuMemArena', 'cpuMemArena'],
    ['enableMemPattern', 'memPattern'],
  ] as const) {
    if (!(name in options)) continue;
    const value = options[name];
    if (typeof value !== 'boolean') throw invalid(name, 'a boolean value.');
    yield [setting, value];
  }
  if ('optimizedModelFilePath' in options) {
    const path = options.optimizedModelFilePath;
    if (typeof path !== 'string') throw invalid('optimizedModelFilePath', 'a string.');
    yield ['optimizedModelFilePath', path];
  }
}

function choice(options: Options, name: string, choices: Readonly<Record<string, number>>): number {
  const value = options[name];
  if (typeof value !== 'string') throw invalid(name, 'a string.');
  if (!Object.hasOwn(choices, value)) throw new TypeError(`'${name}' is not supported: ${value}`);
  return choices[value]!;
}

function* extra(options: Options): Generator<Setting> {
  if (!('extra' in options)) return;
  if (!isObject(options.extra)) throw invalid('extra', 'an object.');
  const error = 'sessionOptions.extra value must be a string in Node.js binding.';
  for (const [key, value] of configEntries(options.extra, error)) yield ['config', key, value];
}

/** Nested objects flattened to ONNX Runtime's keys: `{ session: { a: '1' } }` gives `session.a`. */
export function* configEntries(
  object: Options,
  error: string,
  prefix = '',
): Generator<readonly [string, string]> {
  for (const [key, value] of Object.entries(object)) {
    if (isObject(value)) {
      yield* configEntries(value, error, `${prefix}${key}.`);
    } else {
      if (typeof value !== 'string') throw new TypeError(`Invalid argument: ${error}`);
      yield [prefix + key, value];
    }
  }
}

function* execution(options: Options): Generator<Setting> {
  if ('executionMode' in options) yield ['executionMode', choice(options, 'executionMode', EXECUTION_MODES)];
}

function* logging(options: Options): Generator<Setting> {
  if ('logId' in options) {
    if (typeof options.logId !== 'string') throw invalid('logId', 'a string.');
    yield ['logId', options.logId];
  }
  yield* logLevels(options, 'sessionOptions');
}

/** `logSeverityLevel` and `logVerbosityLevel`, which session and run options share. */
export function* logLevels(options: Options, where: string): Generator<Setting> {
  if ('logSeverityLevel' in options) {
    const level = options.logSeverityLevel;
    const subject = `Invalid argument: ${where}.logSeverityLevel`;
    if (typeof level !== 'number') throw new TypeError(`${subject} must be a number.`);
    if (![0, 1, 2, 3, 4].includes(level)) {
      throw new RangeError(`${subject} must be one of the following: 0, 1, 2, 3, 4.`);
    }
    yield ['logSeverityLevel', level];
  }
  // Stock onnxruntime-node takes any value here and ignores it; a number is passed on.
  if (Number.isInteger(options.logVerbosityLevel)) yield ['logVerbosityLevel', options.logVerbosityLevel];
}

function* profiling(options: Options): Generator<Setting> {
  if (!('enableProfiling' in options)) return;
  if (typeof options.enableProfiling !== 'boolean') throw invalid('enableProfiling', 'a boolean value.');
  if (!options.enableProfiling) return;
  const suffix = ' when sessionOptions.enableProfiling is set to true.';
  if (!('profileFilePrefix' in options)) {
    throw new TypeError(`Invalid argument: sessionOptions.profileFilePrefix is required${suffix}`);
  }
  if (typeof options.profileFilePrefix !== 'string') {
    throw invalid('profileFilePrefix', `a string.${suffix}`);
  }
  yield ['profiling', options.profileFilePrefix];
}

function* externalData(options: Options): Generator<Setting> {
  const files = options.externalData;
  if (files === undefined || files === null) return;
  if (!Array.isArray(files)) throw invalid('externalData', 'an array.');
  const subject = 'Invalid argument: sessionOptions.externalData value must';
  const checked = (files as unknown[]).map((file) => {
    if (!isObject(file)) throw new TypeError(`${subject} be an object in Node.js binding.`);
    const { path, data } = file;
    if (typeof path !== 'string') {
      throw new TypeError(`${subject} have a 'path' property of type string in Node.js binding.`);
    }
    if (!(data instanceof Uint8Array)) {
      throw new TypeError(
        `${subject} have an 'data' property of type buffer or typed array in Node.js binding.`,
      );
    }
    return { path, data };
  });
  if (checked.length > 0) yield ['externalData', checked];
}

/** Documented for Node in onnxruntime-common, though stock onnxruntime-node ignores it. */
function* freeDimensions(options: Options): Generator<Setting> {
  const overrides = options.freeDimensionOverrides;
  if (overrides === undefined || overrides === null) return;
  if (!isObject(overrides)) throw invalid('freeDimensionOverrides', 'an object.');
  for (const [name, size] of Object.entries(overrides)) {
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
      throw invalid(`freeDimensionOverrides['${name}']`, `a non-negative integer, was ${String(size)}.`);
    }
    yield ['freeDimension', name, size];
  }
}

/** Outputs of a model with our operator always arrive on the CPU. */
function* outputLocation(options: Options): Generator<Setting> {
  const preferred = options.preferredOutputLocation;
  if (preferred === undefined || preferred === null) return;
  const subject = 'Invalid argument: preferredOutputLocation';
  if (typeof preferred !== 'string' && !isObject(preferred)) {
    throw new TypeError(`${subject} must be an array or a valid string.`);
  }
  for (const location of typeof preferred === 'string' ? [preferred] : Object.values(preferred)) {
    if (location !== 'cpu' && location !== 'cpu-pinned') {
      throw new TypeError(
        `${subject} is '${String(location)}', must be 'cpu' for a model with SigmoidAttention nodes.`,
      );
    }
  }
  yield* [];
}

function isObject(value: unknown): value is Options {
  return typeof value === 'object' && value !== null;
}
