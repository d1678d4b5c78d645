// The 3D view of a report: two camera frusta, inlier points and a ground grid on a 2D canvas, without dependencies.
// Scenes come in OpenCV axes (x right, y down, z forward) of the reference camera; here y is up and z towards the viewer.
"use strict";
(() => {
  const NEAR = 1e-3; // of the viewing distance
  const PATCHES = 6; // a photo on a frustum is drawn as PATCHES^2 affine pieces, fewer where there are many photos

  const upright = (p) => [p[0], -p[1], -p[2]];
  const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
  const middle = (a, b) => add(a, add(b, a, -1), 0.5);

  // ---------------------------------------------------------------- the scene: positions, extent, ground
  function prepare(raw) {
    const points = raw.points.map(upright);
    const frusta = raw.frusta.map((f) => {
      const image = f.image ? Object.assign(new Image(), { src: f.image }) : null;
      return { ...f, center: upright(f.center), corners: f.corners.map(upright), image };
    });
    const links = raw.links.map((l) => ({ ...l, ends: l.ends.map(upright) }));
    const { extent, frustum: size } = raw.eye;
    return { ...raw, points, frusta, links, extent, size, target: upright(raw.eye.target), ground: -raw.eye.ground };
  }

  // ---------------------------------------------------------------- the eye that orbits the target
  function makeEye(scene) {
    const { yaw, pitch } = scene.eye;
    const home = { yaw: -yaw, pitch, range: (scene.pair ? 2.1 : 1.9) * scene.extent, target: scene.target };
    const eye = { ...home };
    eye.reset = () => Object.assign(eye, home);
    eye.turn = (dx, dy) => {
      eye.yaw -= dx;
      eye.pitch = Math.min(1.55, Math.max(-1.55, eye.pitch + dy));
    };
    eye.zoom = (factor) => {
      eye.range = Math.min(40 * scene.extent, Math.max(0.05 * scene.extent, eye.range * factor));
    };
    return eye;
  }

  function camera(eye, width, height) {
    const [cy, sy, cp, sp] = [Math.cos(eye.yaw), Math.sin(eye.yaw), Math.cos(eye.pitch), Math.sin(eye.pitch)];
    const right = [cy, 0, -sy], up = [-sy * sp, cp, -cy * sp], back = [sy * cp, sp, cy * cp];
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    // a narrow canvas (a phone held upright) must still show the whole extent
    const focal = 1.03 * Math.min(height, 1.1 * width);
    const look = (p) => {
      const d = add(p, eye.target, -1);
      return [dot(d, right), dot(d, up), eye.range - dot(d, back)];
    };
    const screen = (v) => [width / 2 + (focal * v[0]) / v[2], height / 2 - (focal * v[1]) / v[2]];
    return { look, screen, near: NEAR * eye.range };
  }

  // ---------------------------------------------------------------- drawing
  function line(ctx, view, a, b) {
    let [u, v] = [view.look(a), view.look(b)];
    if (u[2] < view.near && v[2] < view.near) return;
    if (u[2] < view.near) [u, v] = [v, u];
    if (v[2] < view.near) v = add(u, add(v, u, -1), (u[2] - view.near) / (u[2] - v[2]));
    ctx.beginPath();
    ctx.moveTo(...view.screen(u));
    ctx.lineTo(...view.screen(v));
    ctx.stroke();
  }

  function label(ctx, view, at, text, colour, style, dy = 0) {
    const seen = view.look(at);
    if (seen[2] < view.near) return;
    const [x, y] = view.screen(seen);
    Object.assign(ctx, { lineWidth: 4, lineJoin: "round", strokeStyle: style("--stage") }); // a halo, to be legible
    ctx.strokeText(text, x, y + dy);
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y + dy);
  }

  const tidy = (value) => String(Number(value.toPrecision(3)));

  function drawGrid(ctx, view, scene, eye, style) {
    const step = 10 ** Math.round(Math.log10(eye.range / 9)); // 0.1, 1, 10 m: about ten lines in sight
    const cells = Math.min(30, Math.max(5, Math.ceil((1.5 * scene.extent) / step)));
    const [cx, cz] = [eye.target[0], eye.target[2]].map((v) => Math.round(v / step));
    ctx.strokeStyle = style("--grid");
    for (let i = -cells; i <= cells; i++) {
      for (const along of [0, 1]) {
        const index = (along ? cz : cx) + i;
        ctx.lineWidth = index % 10 === 0 ? 1.2 : 0.7;
        // in pieces, so that lines fade out at the rim
        for (let j = -cells; j < cells; j++) {
          ctx.globalAlpha = 0.55 * Math.max(0, 1 - Math.hypot(i, j + 0.5) ** 2 / cells ** 2);
          if (ctx.globalAlpha === 0) continue;
          const at = (k) =>
            along ? [(cx + k) * step, scene.ground, index * step] : [index * step, scene.ground, (cz + k) * step];
          line(ctx, view, at(j), at(j + 1));
        }
      }
    }
    ctx.globalAlpha = 1;
    return step;
  }

  function drawAxes(ctx, view, scene, style) {
    const origin = scene.frusta[0].center, length = 0.8 * scene.size;
    const axes = [["x", [1, 0, 0], "#d33"], ["y", [0, -1, 0], "#2a2"], ["z", [0, 0, -1], "#38f"]];
    for (const [name, direction, colour] of axes) {
      const tip = add(origin, direction, length);
      ctx.strokeStyle = colour;
      ctx.lineWidth = 2;
      line(ctx, view, origin, tip);
      label(ctx, view, add(origin, direction, 1.15 * length), name, colour, style);
    }
  }

  function triangle(ctx, image, source, target) {
    // the affine map that takes three pixels of the image to three places on the canvas
    const [[u0, v0], [u1, v1], [u2, v2]] = source, [[x0, y0], [x1, y1], [x2, y2]] = target;
    const det = (u1 - u0) * (v2 - v0) - (u2 - u0) * (v1 - v0);
    const a = ((x1 - x0) * (v2 - v0) - (x2 - x0) * (v1 - v0)) / det;
    const b = ((y1 - y0) * (v2 - v0) - (y2 - y0) * (v1 - v0)) / det;
    const c = ((x2 - x0) * (u1 - u0) - (x1 - x0) * (u2 - u0)) / det;
    const d = ((y2 - y0) * (u1 - u0) - (y1 - y0) * (u2 - u0)) / det;
    const [mx, my] = [(x0 + x1 + x2) / 3, (y0 + y1 + y2) / 3];
    ctx.save();
    ctx.beginPath();
    for (const [x, y] of target) {
      // a little larger than the triangle, or the seams would show
      const grow = 1 + 1 / Math.max(1, Math.hypot(x - mx, y - my));
      ctx.lineTo(mx + (x - mx) * grow, my + (y - my) * grow);
    }
    ctx.clip();
    ctx.transform(a, b, c, d, x0 - a * u0 - c * v0, y0 - b * u0 - d * v0);
    ctx.drawImage(image, 0, 0);
    ctx.restore();
  }

  function drawPhoto(ctx, view, image, corners, pieces) {
    if (!image || !image.complete || !image.naturalWidth) return;
    const [w, h] = [image.naturalWidth, image.naturalHeight];
    const at = (i, j) => {
      const [s, t] = [i / pieces, j / pieces];
      const top = add(corners[0], add(corners[1], corners[0], -1), s);
      const bottom = add(corners[3], add(corners[2], corners[3], -1), s);
      const seen = view.look(add(top, add(bottom, top, -1), t));
      return { pixel: [s * w, t * h], seen, place: view.screen(seen) };
    };
    ctx.globalAlpha = 0.92;
    for (let i = 0; i < pieces; i++) {
      for (let j = 0; j < pieces; j++) {
        const quad = [at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)];
        if (quad.some((q) => q.seen[2] < view.near)) continue;
        for (const [a, b, c] of [[0, 1, 2], [0, 2, 3]]) {
          const corner = [quad[a], quad[b], quad[c]];
          triangle(ctx, image, corner.map((q) => q.pixel), corner.map((q) => q.place));
        }
      }
    }
    ctx.globalAlpha = 1;
  }

  function drawFrustum(ctx, view, scene, frustum, style) {
    const corners = frustum.corners.map((c) => add(frustum.center, c, scene.size * frustum.size));
    drawPhoto(ctx, view, frustum.image, corners, scene.pair ? PATCHES : 2);
    ctx.strokeStyle = style(`--${frustum.role}`);
    ctx.lineWidth = frustum === scene.pointed ? 3 : scene.pair ? 2 : 1.3;
    ctx.setLineDash(frustum.role === "truth" ? [5, 4] : []);
    corners.forEach((corner, i) => {
      line(ctx, view, corner, corners[(i + 1) % 4]);
      line(ctx, view, frustum.center, corner);
    });
    ctx.setLineDash([]);
  }

  function drawPoints(ctx, view, scene, low, high) {
    const radius = Math.max(1.1, Math.min(2.2, 40 / Math.sqrt(scene.points.length + 1)));
    for (const { seen, index } of scene.sorted) {
      if (seen[2] < Math.max(low, view.near) || seen[2] >= high) continue;
      const [x, y] = view.screen(seen);
      const r = radius * Math.min(2, Math.max(0.7, (2.2 * scene.extent) / seen[2]));
      ctx.fillStyle = `rgb(${scene.colours[index].join(",")})`;
      ctx.fillRect(x - r, y - r, 2 * r, 2 * r);
    }
  }

  function draw(canvas, scene, eye) {
    const [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const ctx = canvas.getContext("2d");
    const variables = getComputedStyle(document.documentElement);
    const style = (name) => variables.getPropertyValue(name).trim();
    ctx.scale(ratio, ratio);
    Object.assign(ctx, { font: "600 13px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
    const view = camera(eye, width, height);

    const step = drawGrid(ctx, view, scene, eye, style);
    scene.sorted = scene.points.map((p, index) => ({ seen: view.look(p), index })).sort((a, b) => b.seen[2] - a.seen[2]);
    // the painter's algorithm: points behind a frustum, the frustum, points before it
    const depth = (f) => view.look(add(f.center, f.corners.reduce((s, c) => add(s, c, 0.125 * scene.size), [0, 0, 0])))[2];
    const frusta = scene.frusta.map((f) => ({ f, z: depth(f) })).sort((a, b) => b.z - a.z);
    let high = Infinity;
    for (const { f, z } of frusta) {
      drawPoints(ctx, view, scene, z, high);
      drawFrustum(ctx, view, scene, f, style);
      high = z;
    }
    drawPoints(ctx, view, scene, 0, high);

    for (const link of scene.links) {
      Object.assign(ctx, { strokeStyle: style(`--${link.kind}`), lineWidth: link.kind === "weak" ? 2 : 1 });
      line(ctx, view, ...link.ends);
    }
    if (scene.pair) drawPair(ctx, view, scene, style);
    const named = scene.frusta.filter((f) => scene.pair || f === scene.pointed);
    for (const f of named) {
      label(ctx, view, f.center, f.label, style(`--${f.role}`), style, f.role === "truth" ? 30 : 15);
    }
    Object.assign(ctx, { font: "12px system-ui, sans-serif", textAlign: "left", fillStyle: style("--soft") });
    ctx.fillText(`grid ${tidy(step)} ${scene.unit}`, 10, height - 14);
    scene.places = scene.frusta.map((f) => ({ f, place: view.screen(view.look(f.center)) }));
  }

  function drawPair(ctx, view, scene, style) {
    const [a, b] = [scene.frusta[0].center, scene.frusta[1].center];
    Object.assign(ctx, { strokeStyle: style("--text"), lineWidth: 2 });
    line(ctx, view, a, b);
    drawAxes(ctx, view, scene, style);
    const length = scene.metric ? `${tidy(scene.baseline)} m` : "baseline = 1 (no metres)";
    const [pa, pb] = [a, b].map((p) => view.screen(view.look(p)));
    // below the names of the cameras where the line is too short for all three
    const room = Math.hypot(pa[0] - pb[0], pa[1] - pb[1]) > ctx.measureText(length).width + 110;
    label(ctx, view, middle(a, b), length, style("--text"), style, room ? 14 : scene.frusta.length > 2 ? 46 : 34);
  }

  // ---------------------------------------------------------------- hands on it
  function point(canvas, scene, e) {
    // the camera of a map under the mouse is named; whether that has changed
    const box = canvas.getBoundingClientRect(), before = scene.pointed;
    const away = ({ place }) => Math.hypot(place[0] + box.left - e.clientX, place[1] + box.top - e.clientY);
    const nearest = [...(scene.places || [])].sort((p, q) => away(p) - away(q))[0];
    scene.pointed = nearest && away(nearest) < 14 ? nearest.f : null;
    return scene.pointed !== before;
  }

  function listen(canvas, scene, eye, redraw) {
    const fingers = new Map();
    const spread = () => {
      const [p, q] = [...fingers.values()];
      return Math.hypot(p.x - q.x, p.y - q.y);
    };
    const remember = (e) => fingers.set(e.pointerId, { x: e.clientX, y: e.clientY });
    canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); remember(e); });
    canvas.addEventListener("pointermove", (e) => {
      const last = fingers.get(e.pointerId);
      if (!last && !scene.pair && point(canvas, scene, e)) redraw();
      if (!last) return;
      const before = fingers.size === 2 ? spread() : 0;
      remember(e);
      if (fingers.size === 1) eye.turn(0.008 * (e.clientX - last.x), 0.008 * (e.clientY - last.y));
      else if (before > 0) eye.zoom(before / Math.max(spread(), 1));
      redraw();
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (e) => fingers.delete(e.pointerId));
    canvas.addEventListener("wheel", (e) => {
      // only after a click: the wheel of someone who reads on must keep scrolling the page
      if (document.activeElement !== canvas && !e.ctrlKey) return;
      e.preventDefault();
      eye.zoom(Math.exp(0.0015 * e.deltaY * (e.deltaMode ? 30 : 1)));
      redraw();
    }, { passive: false });
    const keys = {
      ArrowLeft: () => eye.turn(-0.1, 0), ArrowRight: () => eye.turn(0.1, 0),
      ArrowUp: () => eye.turn(0, -0.1), ArrowDown: () => eye.turn(0, 0.1),
      "+": () => eye.zoom(0.85), "-": () => eye.zoom(1 / 0.85), Home: () => eye.reset(),
    };
    canvas.addEventListener("keydown", (e) => {
      if (!keys[e.key] || e.ctrlKey || e.metaKey) return;
      e.preventDefault();
      keys[e.key]();
      redraw();
    });
  }

  for (const figure of document.querySelectorAll("figure.viewer")) {
    const canvas = figure.querySelector("canvas");
    const scene = prepare(JSON.parse(figure.querySelector("script").textContent));
    const eye = makeEye(scene);
    let waiting = false;
    const now = () => { waiting = false; draw(canvas, scene, eye); };
    const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(now); } };
    listen(canvas, scene, eye, redraw);
    figure.querySelector("button").addEventListener("click", () => { eye.reset(); redraw(); });
    scene.frusta.forEach((f) => f.image && f.image.addEventListener("load", redraw));
    new ResizeObserver(redraw).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    for (const [moment, paper] of [["beforeprint", true], ["afterprint", false]])
      addEventListener(moment, () => { document.documentElement.classList.toggle("paper", paper); now(); });
    redraw();
  }
})();
