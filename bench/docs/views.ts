/** How each benchmark's data is shown, by the name of its file in docs/data. */
import type { Bar } from './bar-chart.js';
import type { Row, View } from './page.js';

const RATIO_TITLE = 'Speed against the best other implementation (1: the same)';

const ratioBar =
  (label: (row: Row) => string, group: (row: Row) => string) =>
  (row: Row): readonly Bar[] =>
    typeof row['ratio'] === 'number' ? [{ label: label(row), value: row['ratio'], group: group(row) }] : [];

const WEB_PLOT = { title: 'Speed against ONNX Runtime (1: the same)', line: 1 };

const text = (value: unknown): string => (value === undefined || value === null ? '' : String(value));

/** A bar for each contender of a row; the first carries the label. */
function throughputBars(row: Row): readonly Bar[] {
  const tflops = row['tflops'];
  if (typeof tflops !== 'object' || tflops === null) return [];
  const label = `${text(row['type'])}, D ${text(row['head_size'])}, N ${text(row['length'])}${row['causal'] === true ? ', causal' : ''}`;
  return Object.entries(tflops).map(([group, value], i) => ({
    label: i === 0 ? label : '',
    value: Number(value),
    group,
  }));
}

/** Against each contender of a row that was right and ran; the first bar carries the label. */
function webBars(row: Row): readonly Bar[] {
  const against =
    row['kind'] === 'whole model'
      ? { 'the original model': row['ratio'], 'the portable function': row['functionRatio'] }
      : {
          MultiHeadAttention: row['ratio'],
          'MultiHeadAttention, with matrix instructions': row['matricesRatio'],
          'the portable function': row['functionRatio'],
        };
  return Object.entries(against)
    .filter(([, value]) => typeof value === 'number')
    .map(([group, value], i) => ({
      label: i === 0 ? text(row['shape'] ?? row['model']) : '',
      value: Number(value),
      group,
    }));
}

/** Converter rows by exporter. */
function byExporter(rows: readonly Row[]): Row[] {
  const exporters = [...new Set(rows.map((row) => text(row['exporter'])))].sort();
  return exporters.map((exporter) => {
    const own = rows.filter((row) => row['exporter'] === exporter);
    const positive = own.filter((row) => row['polarity'] === 'positive');
    const share = (key: string): number => positive.filter((row) => row[key] === true).length;
    return {
      exporter,
      positives: positive.length,
      'fully replaced': share('fullyReplaced'),
      verified: positive.filter((row) => row['fullyReplaced'] === true && row['verified'] === true).length,
      'other models': own.length - positive.length,
      'falsely replaced': own.filter(
        (row) => text(row['polarity']).startsWith('negative') && Number(row['replaced']) > 0,
      ).length,
    };
  });
}

export const VIEWS: Readonly<Record<string, View>> = {
  cpu: {
    title: 'CPU kernel',
    text:
      'The operator against every other way to compute attention in ONNX Runtime, in the same process and on the same ' +
      'threads. A ratio above 1 means that the operator is faster than the best of them.',
    command: 'npm run bench:cpu -- --json docs/data/cpu.json',
    columns: ['shape', 'type', 'threads', 'best', 'ratio', 'sgemmShare'],
    plot: {
      title: RATIO_TITLE,
      line: 1,
      bars: ratioBar(
        (row) => `${text(row['shape'])} ${text(row['type'])}`,
        (row) => `${text(row['threads'])} threads`,
      ),
    },
  },
  web: {
    title: 'WebGPU',
    text:
      "The WGSL kernels against ONNX Runtime's WebGPU provider on the same adapter, and whole models: the original, the " +
      'converted one cut at its attention, and the converted one in one session with the portable function. Times are ' +
      'milliseconds; a ratio above 1 means that the kernels are faster.',
    command: 'npm run bench:web -- --json docs/data/web-software.json',
    plot: { ...WEB_PLOT, bars: webBars },
  },
  'web-h100': {
    title: 'WebGPU',
    text:
      "The WGSL kernels against ONNX Runtime's WebGPU provider on one GPU, decoding against a plain copy, and whole models. " +
      'Times are milliseconds; a ratio above 1 means that the kernels are faster. `clock` is what a loop of multiply-adds ' +
      'reached in the same rounds, in TFLOP/s.',
    command: 'npm run bench:web -- --json docs/data/web-h100.json',
    plot: { ...WEB_PLOT, bars: webBars },
  },
  cuda: {
    title: 'CUDA kernels',
    text: 'The CUDA kernels against attention of other libraries on one GPU. A ratio above 1 means that ours is faster.',
    command:
      'python bench/cuda/bench.py --library libort_sigmoid_attention_cuda.so --json docs/data/cuda-h100.json',
    plot: { title: 'Prefill, TFLOP/s', line: null, bars: throughputBars },
  },
  converter: {
    title: 'Converter',
    text:
      'Every model of the zoo is converted, run beside the original and compared. Models with attention that must be ' +
      'replaced are positives; the others must be left alone.',
    command: 'npm run bench:converter -- --json docs/data/converter.json',
    grouped: byExporter,
    plot: {
      title: 'Share of models replaced in full and verified, by exporter',
      line: 1,
      bars: (row) => {
        const positives = Number(row['positives']);
        return positives === 0
          ? []
          : [{ label: text(row['exporter']), value: Number(row['verified']) / positives, group: 'verified' }];
      },
    },
  },
  fidelity: {
    title: 'Fidelity',
    text: 'What the modes do to models at their task. Calibrated models are fitted on other data than they are judged on.',
    command: 'npm run bench:fidelity -- --json docs/data/fidelity.json',
    columns: ['task', 'form', 'kept', 'sites', 'value', 'differing', 'decisions', 'fitSeconds'],
    plot: {
      title: "Decisions that differ from the original's, per cent",
      line: null,
      bars: (row) =>
        Number(row['decisions']) > 0
          ? [
              {
                label: `${text(row['form'])}${Number(row['kept']) > 0 ? `, ${text(row['kept'])} kept` : ''}`,
                value: (100 * Number(row['differing'])) / Number(row['decisions']),
                group: text(row['task']),
              },
            ]
          : [],
    },
  },
};

/** The view for data of a name: `cuda-h100` is shown as `cuda`, with its machine in the title. */
export function viewOf(name: string): View {
  const [kind = name, ...rest] = name.split('-');
  const view = VIEWS[name] ?? VIEWS[kind];
  if (view === undefined) return plainView(name);
  return rest.length === 0 ? view : { ...view, title: `${view.title} (${rest.join(' ')})` };
}

/** For data that has no view. */
export function plainView(name: string): View {
  return {
    title: `Benchmark ${name}`,
    text: 'Ratios above 1 mean that ours is faster.',
    command: `npm run bench:${name} -- --json docs/data/${name}.json`,
    plot: {
      title: RATIO_TITLE,
      line: 1,
      bars: ratioBar(
        (row) => text(row['name'] ?? row['shape'] ?? row['model']),
        () => 'ratio',
      ),
    },
  };
}
