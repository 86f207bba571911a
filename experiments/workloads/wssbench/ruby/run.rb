# SPDX-License-Identifier: Apache-2.0
# A shop's back office: orders are read as text, kept, sorted, rendered, and forgotten.
require 'erb'
require 'json'

CHANCE = Random.new(Integer(ENV['seed']))
PAGE = ERB.new('<ul><% orders.each do |o| %><li><%= o[:id] %>: <%= o[:items].size %></li><% end %></ul>')

def phase(name) = system('pmlguest', 'phase', name)

def rest
  phase('idle')
  sleep(0.3 + 5 * CHANCE.rand**2)
end

def text(count, from)
  (from...(from + count)).map do |id|
    items = Array.new(CHANCE.rand(1..12)) { { sku: "s#{CHANCE.rand(3000)}", n: CHANCE.rand(1..9) } }
    JSON.generate(id: id, customer: "c#{CHANCE.rand(800)}", items: items)
  end.join("\n")
end

orders = []
loop do
  case CHANCE.rand(8)
  when 0, 1
    phase('parse')
    lines = text(300 + CHANCE.rand(2500), orders.size)
    orders.concat(lines.lines.map { |line| JSON.parse(line, symbolize_names: true) })
  when 2
    phase('sort')
    orders.sort_by! { |order| [order[:customer], -order[:items].size] }
  when 3
    phase('render')
    20.times { PAGE.result_with_hash(orders: orders.sample(150, random: CHANCE)) }
  when 4, 5
    phase('query')
    5.times { orders.group_by { |o| o[:customer] }.transform_values { |list| list.sum { |o| o[:items].size } } }
  when 6
    phase('write')
    File.write('/tmp/orders.json', JSON.generate(orders.last(4000)))
  when 7
    phase('forget')
    orders = orders.last(CHANCE.rand(1000..6000))
    GC.start
  end
  rest
end
