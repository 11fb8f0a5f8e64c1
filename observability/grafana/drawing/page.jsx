// Draws one board of window.PICTURE with Grafana's own components. Prometheus was asked before: the answers are in
// PICTURE.answers, by panel id, one a target. Grafana applies a panel's field configuration in its own application,
// which no package carries; `configured` does the same for the options that our boards use.
import { useRef } from 'react';
import { createRoot } from 'react-dom/client';
import {
  FieldType, ThemeContext, createTheme, dateTime, getDisplayProcessor, toDataFrame,
} from '@grafana/data';
import { BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const { board, answers, from, to, dark, width, marks } = window.PICTURE;
const theme = createTheme({ colors: { mode: dark ? 'dark' : 'light' } });
const COLUMN = width / 24;
const ROW = 38;
const GAP = 8;

const legend = (target, labels) =>
  (target.legendFormat || '').replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? '') ||
  Object.entries(labels).map(([name, value]) => `${name}=${value}`).join(', ') || 'value';

function configured(field, panel, name) {
  const defaults = panel.fieldConfig?.defaults ?? {};
  const overridden = (panel.fieldConfig?.overrides ?? [])
    .filter((one) => one.matcher.id === 'byName' && one.matcher.options === name)
    .flatMap((one) => one.properties.map((property) => [property.id, property.value]));
  const config = { ...defaults, custom: { ...(defaults.custom ?? {}) } };
  for (const [id, value] of overridden) {
    if (id.startsWith('custom.')) config.custom[id.slice('custom.'.length)] = value;
    else config[id] = value;
  }
  const thresholds = config.thresholds && {
    ...config.thresholds,
    steps: config.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity })),
  };
  field.config = { ...config, ...(thresholds ? { thresholds } : {}), displayNameFromDS: name };
  field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
  return field;
}

function series(panel) {
  return panel.targets.flatMap((target, place) =>
    answers[panel.id][place].map((one) => {
      const points = (one.values ?? [one.value]).filter(([, value]) => value !== 'NaN');
      const name = legend(target, one.metric);
      const frame = toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, config: {}, values: points.map(([at]) => at * 1000) },
          { name: 'Value', type: FieldType.number, config: {}, labels: one.metric, values: points.map(([, v]) => +v) },
        ],
      });
      frame.name = name;
      configured(frame.fields[1], panel, name);
      return frame;
    }),
  ).filter((frame) => frame.length > 0).map((frame, index) => {
    frame.fields.forEach((field) => { field.state = { seriesIndex: index }; });
    configured(frame.fields[1], panel, frame.name);
    return frame;
  });
}

function Numbers({ panel, w, h }) {
  const frames = series(panel);
  if (!frames.length) return <Nothing>{panel.fieldConfig?.defaults?.noValue ?? 'No data'}</Nothing>;
  const columns = Math.min(frames.length, Math.max(1, Math.floor(w / 120)));
  const lines = Math.ceil(frames.length / columns);
  const named = panel.options.textMode === 'value_and_name';
  return (
    <div style={{ display: 'flex', flexWrap: 'wrap', gap: 4 }}>
      {frames.map((frame, index) => {
        const [time, field] = frame.fields;
        const value = { ...field.display(field.values[field.values.length - 1]), title: named ? frame.name : undefined };
        const [min, max] = [Math.min(...field.values), Math.max(...field.values)];
        const drawn = { ...field, state: { ...field.state, range: { min, max, delta: max - min } } };
        const sparkline = panel.options.graphMode === 'area' ? { x: time, y: drawn } : undefined;
        return (
          <BigValue
            key={index} theme={theme} value={value} sparkline={sparkline} count={frames.length}
            width={w / columns - 4} height={h / lines - 4} textMode={panel.options.textMode ?? 'auto'}
            colorMode={panel.options.colorMode} graphMode={panel.options.graphMode} justifyMode="auto"
          />
        );
      })}
    </div>
  );
}

function Curves({ panel, w, h }) {
  const frames = series(panel);
  if (!frames.length) return <Nothing>No data</Nothing>;
  return (
    <TimeSeries
      frames={frames} width={w} height={h} structureRev={1} timeZone="utc" options={{}}
      legend={{ ...panel.options.legend, calcs: [] }}
      timeRange={{ from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: dateTime(from * 1000), to: dateTime(to * 1000) } }}
    >
      {(builder) => <Marks builder={builder} />}
    </TimeSeries>
  );
}

// Annotations: Grafana's plugin for them is in no package either, so a line at each is drawn by a hook.
function Marks({ builder }) {
  const hooked = useRef(null);
  if (hooked.current !== builder) {
    hooked.current = builder;
    builder.addHook('draw', (plot) => {
      for (const { at, color } of marks) {
        const x = plot.valToPos(at * 1000, 'x', true);
        if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
        plot.ctx.save();
        plot.ctx.strokeStyle = theme.visualization.getColorByName(color);
        plot.ctx.setLineDash([4, 4]);
        plot.ctx.beginPath();
        plot.ctx.moveTo(x, plot.bbox.top);
        plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
        plot.ctx.stroke();
        plot.ctx.restore();
      }
    });
  }
  return null;
}

function Rows({ panel, w, h }) {
  const found = answers[panel.id].flat();
  if (!found.length) return <Nothing>{panel.fieldConfig?.defaults?.noValue ?? 'No data'}</Nothing>;
  const { indexByName, renameByName } = panel.transformations.find((one) => one.id === 'organize').options;
  const names = Object.keys(indexByName).sort((a, b) => indexByName[a] - indexByName[b]);
  const frame = toDataFrame({
    fields: names.map((name) => ({
      name: renameByName[name] ?? name,
      type: name === 'Value' ? FieldType.number : FieldType.string,
      config: {},
      values: found.map((one) => (name === 'Value' ? +one.value[1] : one.metric[name] ?? '')),
    })),
  });
  frame.fields.forEach((field) => configured(field, panel, field.name));
  return <TableNG data={frame} width={w} height={h} structureRev={1} sortBy={panel.options.sortBy} />;
}

function Nothing({ children }) {
  return (
    <div style={{ display: 'flex', height: '100%', alignItems: 'center', justifyContent: 'center', color: theme.colors.text.secondary }}>
      {children}
    </div>
  );
}

const KINDS = { stat: Numbers, timeseries: Curves, table: Rows };

function Placed({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const place = { position: 'absolute', left: x * COLUMN + GAP, top: y * ROW + 56, width: w * COLUMN - GAP, height: h * ROW - GAP };
  if (panel.type === 'row') {
    return <div style={{ ...place, ...theme.typography.h5, paddingTop: 4, color: theme.colors.text.primary }}>{panel.title}</div>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div data-testid="panel" style={place}>
      <PanelChrome title={panel.title} width={place.width} height={place.height} padding="sm">
        {(w, h) => <Kind panel={panel} w={w} h={h} />}
      </PanelChrome>
    </div>
  );
}

const when = `${dateTime(from * 1000).toISOString().slice(0, 19)}Z to ${dateTime(to * 1000).toISOString().slice(0, 19)}Z`;
const tall = Math.max(...board.panels.map((one) => one.gridPos.y + one.gridPos.h)) * ROW + 72;
document.body.style.margin = 0;
document.body.style.height = `${tall}px`;
createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ position: 'relative', height: tall, width: width + GAP, background: theme.colors.background.canvas }}>
      <div style={{ padding: '14px 12px', color: theme.colors.text.primary }}>
        <span style={theme.typography.h4}>{board.title}</span>
        <span style={{ ...theme.typography.bodySmall, marginLeft: 16, color: theme.colors.text.secondary }}>{when}</span>
      </div>
      {board.panels.map((panel, index) => <Placed key={index} panel={panel} />)}
    </div>
  </ThemeContext.Provider>,
);
