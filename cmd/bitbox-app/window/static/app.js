// The script of the App's window. Pages work without it; it keeps them up to date, counts down, and
// says aloud what has changed. What it agrees on with the server stands in ../window.go; its
// sentences are data attributes of the body, in the language of the page.
const body = document.body
const words = body.dataset
const page = words.page // path and query
const key = document.querySelector('meta[name=proof]')?.content // none: a page without a session
const note = document.getElementById('note') // a sentence about the page itself
const voice = document.getElementById('voice') // the one live region
// The browser takes HTML from this policy alone. Its HTML comes from the proven server.
const policy = window.trustedTypes?.createPolicy('window', { createHTML: html => html }) ?? { createHTML: html => html }

const two = number => String(number).padStart(2, '0')
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => two(byte.toString(16))).join('')
const bytes = hex => Uint8Array.from(hex.match(/../g) ?? [], pair => parseInt(pair, 16))
const fill = (sentence, values) => sentence.replace(/{(\w+)}/g, (_, name) => values[name])
const find = (selector, within = document) => Array.from(within.querySelectorAll(selector))
const listenTo = (kinds, react, target = document) => kinds.split(' ').forEach(kind => target.addEventListener(kind, react))
const tab = random()

function tell(sentence) {
  note.textContent = sentence
  note.hidden = !sentence
}

// --- Coming in: the ticket is in the fragment, which no server and no log sees -------------------

async function enter() {
  const ticket = location.hash.slice(1)
  if (!ticket) return
  history.replaceState(null, '', location.pathname)
  const answer = await send('/enter', { ticket })
  if (!answer) return tell(words.gone)
  if (answer.status === 204) return location.replace('/')
  const said = await answer.json().catch(() => ({}))
  tell(said.refused ?? words.gone)
  if (said.code) document.querySelector('[name=code]')?.focus()
}

// send posts a form. The answer is undefined if there is no server.
const send = (path, fields) =>
  fetch(path, { method: 'POST', body: new URLSearchParams(fields), redirect: 'error' }).catch(() => undefined)

// --- The stream ----------------------------------------------------------------------------------

let source, proven, heard, stale // the open stream, when the server spoke last, and whether that is long ago
let over = !key, locked = false // nothing comes any more; nothing is shown
let again, pause = 1000 // the timer that opens the stream again, and its milliseconds
let reported = 0 // when the server heard of this page

function listen() {
  quiet()
  if (over || locked || document.hidden) return
  const nonce = random()
  proven = false
  heard ??= Date.now()
  const mine = source = new EventSource('/stream?' + new URLSearchParams({ page, tab, nonce, shape: body.dataset.shape }))
  let turn = Promise.resolve()
  source.onmessage = event => { turn = turn.then(calm).then(() => source === mine && receive(JSON.parse(event.data), mine, nonce)) }
  source.onerror = () => source === mine && (quiet(), ask())
}

function quiet() {
  clearTimeout(again)
  source = void source?.close()
}

// proves tells whether it is the server that made this page. After the App has ended, its port may
// be another user's.
async function proves(proof, nonce) {
  const secret = await crypto.subtle.importKey('raw', bytes(key), { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])
  return crypto.subtle.verify('HMAC', secret, bytes(proof), bytes(nonce))
}

async function receive(event, from, nonce) {
  const right = event.proof && await proves(event.proof, nonce)
  if (source !== from) return // a later stream has taken its place
  if (event.proof) proven = right
  if (!proven) return end(words.foreign)
  if (event.proof || stale) tell('')
  heard = Date.now()
  pause = 1000
  if (event.title) document.title = event.title
  for (const part of event.parts ?? []) apply(part)
  if (event.parts) settle()
  if ('idle' in event) tell(event.idle ? fill(words.idle, { seconds: event.idle }) : '')
  if (event.idle) speak(note.textContent)
  if (event.locked) lock(event.locked)
  if (event.gone) end(event.gone)
}

function end(sentence) {
  over = true
  quiet()
  tell(sentence)
  speak(sentence)
}

// lock hides the page behind a sentence; without one it shows it again.
function lock(sentence) {
  locked = !!sentence
  hide()
  body.classList.toggle('locked', locked)
  quiet()
  tell(sentence)
}

// ask finds out why there is no stream: the App is gone, the page is locked, or nothing is wrong.
async function ask() {
  const answer = await report()
  if (!answer) return end(words.gone)
  if (answer.status === 401) return lock(words.locked) // nobody has proven who says so: no sentence of theirs
  if (locked) lock('')
  again = setTimeout(listen, pause = Math.min(2 * pause, 15000))
}

function report(active = 0) {
  reported = Date.now()
  return send('/tab', { tab, active, state: document.hidden ? 'hidden' : 'shown' })
}

// --- Morphing: what has focus, typed text or a selection is never replaced and never moved -------

const late = new Map() // parts that could not be changed whole, by id
let missed // something was left as it is
let rest = 0 // until when nothing may change: a pointer is down, or its click is to come
const calm = async () => { while (performance.now() < rest) await new Promise(done => setTimeout(done, 50)) }

// A part without an id is the document, whose live parts follow.
function apply({ id, html }) {
  const old = id ? document.getElementById(id) : document.documentElement
  if (!old) return late.delete(id)
  const fresh = new DOMParser().parseFromString(policy.createHTML(html), 'text/html')
  const tails = find('[data-tail]', old).filter(t => t.scrollTop + t.clientHeight > t.scrollHeight - 8)
  missed = false
  id ? children(old, fresh.body) : change(old, fresh.documentElement)
  missed ? late.set(id, html) : late.delete(id)
  for (const tail of tails) tail.scrollTop = tail.scrollHeight
}

const label = node => node.nodeName + ' ' + (node.id || node.dataset?.key || '')

function children(old, fresh) {
  const kept = []
  let at = old.firstChild
  for (const want of Array.from(fresh.childNodes)) {
    let have = at
    while (have && label(have) !== label(want)) have = want.data === undefined ? have.nextSibling : null // text stands still
    if (!have) {
      const misplaced = kept.find(node => label(node) === label(want)) // it stays where it is
      misplaced ? change(misplaced, want) : old.insertBefore(want, at)
    } else {
      while (at !== have) at = drop(at, kept)
      change(have, want)
      at = have.nextSibling
    }
  }
  while (at) at = drop(at, kept)
}

// drop removes a node, if it may, and returns the next one.
function drop(node, kept) {
  const next = node.nextSibling
  held(node) ? (missed = kept.push(node)) : node.remove()
  return next
}

function change(old, want) {
  if (old === note || old === voice) return
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== want.data) selected(old) ? (missed = true) : (old.data = want.data)
    return
  }
  const stays = attribute => attribute === 'open' || (/^(value|checked)$/.test(attribute) && typed(old))
  const apart = old.dataset.until && want.dataset.until || 'live' in want.dataset // tick, or a part of its own, writes what is in it
  for (const { name, value } of want.attributes) if (old.getAttribute(name) !== value && !stays(name)) old.setAttribute(name, value)
  for (const { name } of Array.from(old.attributes)) if (!want.hasAttribute(name) && !stays(name)) old.removeAttribute(name)
  if (!apart && old.nodeName !== 'TEXTAREA') children(old, want)
}

const selected = node => !getSelection().isCollapsed && getSelection().containsNode(node, true)

function typed(field) {
  if (field.type === 'file') return field.files.length > 0
  if (field.options) return field.selectedIndex !== Math.max(0, Array.from(field.options).findIndex(o => o.defaultSelected))
  if (/^(checkbox|radio)$/.test(field.type)) return field.checked !== field.defaultChecked
  return 'defaultValue' in field && field.value !== field.defaultValue
}

function held(node) {
  if (selected(node)) return true
  if (node.nodeType !== Node.ELEMENT_NODE) return false
  return document.activeElement !== body && node.contains(document.activeElement) || [node, ...find('input, textarea, select', node)].some(typed)
}

// --- What is said aloud: one sentence in three seconds -------------------------------------------

const queue = []
const said = new Map() // texts of the elements with data-say, by its value
const shown = new WeakMap() // the question of a button with data-dead, and since when it has been on the screen
let spoke = 0

function speak(sentence) {
  if (sentence && !queue.includes(sentence)) queue.push(sentence)
  queue.splice(0, queue.length - 4)
}

// settle looks at what is on the page after it was opened, or has changed.
function settle(opened = false) {
  for (const node of find('[data-say]')) {
    const text = (node.dataset.spoken ?? node.textContent).trim()
    if (said.get(node.dataset.say) !== text && !opened) speak(text)
    said.set(node.dataset.say, text)
  }
  tick()
}

const readTime = 1000 // milliseconds
const early = button => !(performance.now() - shown.get(button)?.since >= readTime)

// fade shows which yes does not count yet, by the clock that decides it: an animation's runs ahead
// of it on a machine that has much to do.
function fade() {
  if (document.hidden || locked) return
  for (const button of find('[data-dead]')) {
    if (shown.get(button)?.id !== button.dataset.dead) {
      shown.set(button, { id: button.dataset.dead, since: performance.now() })
      setTimeout(fade, readTime + 10) // the two clocks are not equally fine
    }
    button.classList.toggle('pale', early(button))
  }
}

// hide has each question read anew when it is shown again.
function hide() {
  for (const button of find('[data-dead]')) shown.delete(button)
}

// --- Time ----------------------------------------------------------------------------------------

const left = new Map() // seconds at the last tick, by what counts down

function tick() {
  const now = Date.now()
  for (const node of find('[data-until]')) {
    const seconds = Math.max(0, Math.ceil((node.dataset.until - now) / 1000))
    if (seconds >= 86400) continue // the server has written the day
    const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60
    const text = (hours ? hours + ':' + two(minutes) : minutes) + ':' + two(seconds % 60)
    if (node.textContent !== text && !selected(node)) node.textContent = text
    const what = node.dataset.spoken
    const step = [30, 10, 0].findLast(n => seconds <= n && left.get(what) > n)
    if (what && step !== undefined) speak(fill(step ? words.left : words.ended, { what, seconds: step }))
    left.set(what, seconds)
  }
  if (queue.length && now - spoke >= 3000) {
    spoke = now
    voice.textContent = queue.shift()
  }
  if (!locked && performance.now() >= rest) for (const [id, html] of late) apply({ id, html })
  fade()
  stale = !over && !locked && !document.hidden && heard && now - heard > 35000
  if (stale) tell(fill(words.stale, { time: new Date(heard).toLocaleTimeString(document.documentElement.lang) }))
  if (key && !over && (document.hidden || locked) && now - reported > 50000) ask()
}

// --- The person ----------------------------------------------------------------------------------

let sent = -1000 // when the last form was sent
listenTo('submit', event => {
  const button = event.submitter
  const unread = button?.dataset.dead && early(button)
  if (unread) speak(words.early)
  if (unread || performance.now() - sent < 1000) return event.preventDefault() // or a press has trembled
  sent = performance.now()
})
listenTo('pointerdown', () => { rest = performance.now() + 10000 })
listenTo('pointerup pointercancel', () => { rest = performance.now() + 100 })

listenTo('click', event => {
  const from = document.getElementById(event.target.closest('[data-copy]')?.dataset.copy)
  if (from) navigator.clipboard.writeText(from.textContent.trim()).then(() => speak(words.copied))
})

// A file field with data-into is read into that text area. A file that is dropped anywhere else
// must not replace the page.
listenTo('change', async event => {
  const { files, dataset } = event.target
  if (!dataset.into || !files.length) return
  const texts = await Promise.all(Array.from(files, file => file.slice(0, 65536).text()))
  const area = document.getElementById(dataset.into)
  area.value = [area.value.trim(), ...texts].filter(Boolean).join('\n')
  event.target.value = ''
  area.focus()
})
listenTo('dragover drop', event => {
  if (!event.dataTransfer.types.includes('Files')) return
  event.preventDefault()
  const field = event.target.closest?.('[data-drop]')?.querySelector('input[type=file]')
  event.dataTransfer.dropEffect = 'copy' // after 'none' there would be no drop to speak of
  if (event.type === 'dragover') return
  if (!field) return speak(words.beside)
  field.files = event.dataTransfer.files
  field.dispatchEvent(new Event('change', { bubbles: true }))
})

listenTo('keydown pointerdown pointermove wheel', () => !over && !locked && Date.now() - reported > 20000 && report(1))
listenTo('visibilitychange', () => {
  if (over) return
  hide()
  locked && !document.hidden ? ask() : report()
  document.hidden ? quiet() : (settle(), listen())
})
listenTo('pagehide', () => key && navigator.sendBeacon('/tab', new URLSearchParams({ tab, active: 0, state: 'closed' })), window)
listenTo('pageshow', event => event.persisted && location.reload(), window)

if (page === '/enter') enter()
for (const link of find('#side [aria-current]')) link.closest('nav').scrollLeft = link.offsetLeft - 40 // on a narrow page
settle(true)
listen()
setInterval(tick, 1000)
