/** Charts of errors and fitted parameters, drawn as SVG without a script. */
import type { SiteFit } from '../calibrate/fit-site.js';
import type { Verification } from '../verify/verification.js';
import { drawing, escaped, percent } from './html.js';

const WIDTH = 860;
const LEFT = 62;
const RIGHT = 16;
const TOP = 14;
const PLOT_HEIGHT = 190;

interface Series {
  readonly name: string;
  /** CSS class of the dots. */
  readonly style: string;
  readonly points: readonly { readonly label: string; readonly value: number }[];
}

/** Relative difference of each site's output, on a logarithmic scale with the tolerance as a line. */
export function errorPlot({ sites, tolerance }: Verification): string {
  const series: Series[] = [
    {
      name: 'from the original',
      style: 'drift',
      points: sites.map(({ site, drift }) => ({ label: site, value: drift?.maxRelative ?? NaN })),
    },
    {
      name: 'from the original with sigmoid in place of softmax',
      style: 'structure',
      points: sites.map(({ site, structure }) => ({ label: site, value: structure?.maxRelative ?? NaN })),
    },
  ].filter(({ points }) => points.some(({ value }) => !Number.isNaN(value)));
  const allowed = series.length > 1 ? 'allowed for the violet ones' : 'allowed';
  return logPlot(series, tolerance, allowed, 'relative difference of each replaced site');
}

function logPlot(series: readonly Series[], line: number, allowed: string, description: string): string {
  const values = series
    .flatMap(({ points }) => points.map(({ value }) => value))
    .filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(1e-7, ...values)));
  const high = Math.ceil(Math.log10(Math.max(line, 1e-2, ...values.filter(Number.isFinite))));
  const y = (value: number): number => {
    const at = value > 0 ? Math.min(high, Math.max(low, Math.log10(value))) : low;
    return TOP + (PLOT_HEIGHT * (high - at)) / (high - low);
  };
  const count = series[0]?.points.length ?? 0;
  const x = (index: number): number => LEFT + ((WIDTH - LEFT - RIGHT) * (index + 0.5)) / Math.max(1, count);
  const grid: string[] = [];
  for (let exponent = low; exponent <= high; exponent++) {
    const at = y(10 ** exponent);
    grid.push(
      `<path class="grid" d="M${LEFT} ${at}H${WIDTH - RIGHT}"/>` +
        `<text class="label end" x="${LEFT - 8}" y="${at + 4}">10<tspan class="sup" dy="-5">${exponent}</tspan></text>`,
    );
  }
  const limit = y(line);
  const tolerance =
    `<path class="limit" d="M${LEFT} ${limit}H${WIDTH - RIGHT}"/>` +
    `<text class="label end" x="${WIDTH - RIGHT}" y="${limit - 5}">${escaped(allowed)}</text>`;
  const dots = series.flatMap(({ points, style, name }) =>
    points.flatMap(({ label, value }, index) =>
      Number.isNaN(value)
        ? []
        : [
            `<circle class="${style}" cx="${x(index)}" cy="${y(value)}" r="5"><title>${escaped(`${label}, ${name}: ${value.toExponential(2)}`)}</title></circle>`,
          ],
    ),
  );
  const step = Math.max(1, Math.ceil(count / 40));
  const labels = Array.from({ length: count }, (_, index) =>
    index % step === 0
      ? `<text class="label middle" x="${x(index)}" y="${TOP + PLOT_HEIGHT + 18}">${index + 1}</text>`
      : '',
  );
  const height = TOP + PLOT_HEIGHT + 26;
  return drawing(WIDTH, height, description, grid.join('') + tolerance + dots.join('') + labels.join(''));
}

const BAR = 15;

/** Error of each site's attention output: with b = -log n, and fitted. */
export function calibrationBars(sites: readonly SiteFit[]): string {
  const largest = Math.max(
    0.01,
    ...sites.map(({ error }) => error),
    ...sites.map((site) => Math.min(1, site.paperError)),
  );
  const span = WIDTH - LEFT - RIGHT - 260;
  const rows = sites.map(({ site, form, error, heldBackError, paperError, kept }, index) => {
    const y = TOP + index * (2 * BAR + 14);
    const bar = (value: number, style: string, at: number, text: string): string => {
      const length = Math.max(1, (span * Math.min(value, largest)) / largest);
      return (
        `<rect class="${style}" x="${LEFT}" y="${at}" width="${length}" height="${BAR - 2}" rx="3"><title>${escaped(`${site}: ${text}`)}</title></rect>` +
        `<text class="label" x="${LEFT + length + 6}" y="${at + 10}">${escaped(text)}</text>`
      );
    };
    const second = kept
      ? `<text class="label" x="${LEFT}" y="${y + BAR + 11}">kept faithful (fitted it would be ${percent(error)})</text>`
      : bar(
          error,
          'fitted',
          y + BAR,
          `${percent(error)}, ${form}; ${percent(heldBackError)} on rows held back`,
        );
    return (
      `<text class="label end" x="${LEFT - 8}" y="${y + BAR + 3}">${index + 1}</text>` +
      bar(
        paperError,
        'paper',
        y,
        `${percent(paperError)}${paperError > largest ? ', longer than drawn' : ''}`,
      ) +
      second
    );
  });
  const height = TOP + sites.length * (2 * BAR + 14);
  return drawing(WIDTH, height, 'error of the attention output of each site', rows.join(''));
}

/** Fitted bias, temperature and gain of every head, one column a site. */
export function parameterPlots(sites: readonly SiteFit[]): string {
  const fitted = sites.filter(({ kept }) => !kept);
  const kinds = [
    { key: 'bias', title: 'bias', neutral: 0 },
    { key: 'scale', title: 'temperature', neutral: 1 },
    { key: 'gain', title: 'gain', neutral: 1 },
  ] as const;
  return kinds
    .map(({ key, title, neutral }) => {
      const columns = fitted.map(({ site, heads }) => ({ site, values: heads.map((head) => head[key]) }));
      return `<figure><figcaption>${title}</figcaption>${dotColumns(columns, neutral, title)}</figure>`;
    })
    .join('');
}

function dotColumns(
  columns: readonly { readonly site: string; readonly values: readonly number[] }[],
  neutral: number,
  title: string,
): string {
  const [width, height, left] = [280, 150, 44];
  const values = columns.flatMap((column) => column.values);
  const low = Math.min(neutral, ...values);
  const high = Math.max(neutral, ...values);
  const pad = (high - low || 1) * 0.08;
  const y = (value: number): number => 8 + ((height - 34) * (high + pad - value)) / (high - low + 2 * pad);
  const x = (index: number): number => left + ((width - left - 10) * (index + 0.5)) / columns.length;
  const short = (value: number): string => String(Number(value.toPrecision(2)));
  const axis =
    `<path class="limit" d="M${left} ${y(neutral)}H${width - 8}"/>` +
    [low, high]
      .map((value) => `<text class="label end" x="${left - 6}" y="${y(value) + 4}">${short(value)}</text>`)
      .join('');
  const step = Math.max(1, Math.ceil(columns.length / 12));
  const marks = columns.map(({ site, values: own }, index) => {
    const dots = own.map(
      (value, head) =>
        `<circle class="structure" cx="${x(index)}" cy="${y(value)}" r="3.5"><title>${escaped(`${site}, head ${head}: ${short(value)}`)}</title></circle>`,
    );
    const label =
      index % step === 0
        ? `<text class="label middle" x="${x(index)}" y="${height - 6}">${index + 1}</text>`
        : '';
    return dots.join('') + label;
  });
  return drawing(width, height, `fitted ${title} of each head`, axis + marks.join(''));
}
