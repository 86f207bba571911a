// SPDX-License-Identifier: Apache-2.0
// A service that keeps records of customers: requests of hot and of any records, reports, and times
// at which many records are let go.

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Collectors;

public class Service {
    record Customer(int id, String name, double[] orders) {}

    static final Map<Integer, Customer> customers = new HashMap<>();
    static Random random;
    static int next = 0;
    static long sink = 0;

    static void phase(String name) throws Exception {
        new ProcessBuilder("pmlguest", "phase", name).inheritIO().start().waitFor();
    }

    static void load(int count) {
        for (int i = 0; i < count; i++, next++) {
            customers.put(next, new Customer(next, "customer " + next, random.doubles(20).toArray()));
        }
    }

    static void requests(int count, int among) {
        List<Integer> ids = new ArrayList<>(customers.keySet());
        for (int i = 0; i < count; i++) {
            Customer customer = customers.get(ids.get(random.nextInt(Math.min(among, ids.size()))));
            for (double order : customer.orders()) sink += (long) (order * 100);
            customer.orders()[random.nextInt(20)] = random.nextDouble();
        }
    }

    static void report() {
        Map<Integer, Double> sums = customers.values().stream().collect(Collectors.groupingBy(
            c -> c.id() % 100, Collectors.summingDouble(c -> c.orders()[3])));
        sink += sums.size();
    }

    static void text(int lines) {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < lines; i++) out.append(String.format("%d,%.3f%n", i, random.nextDouble()));
        sink += out.toString().split("\n").length;
    }

    static void rest() throws Exception {
        phase("idle");
        double x = random.nextDouble();
        Thread.sleep((long) (300 + 5000 * x * x));
    }

    public static void main(String[] arguments) throws Exception {
        random = new Random(Long.parseLong(arguments[0]));
        phase("load");
        load(20000);
        while (true) {
            switch (random.nextInt(8)) {
                case 0, 1 -> { phase("load"); load(5000 + random.nextInt(30000)); }
                case 2, 3 -> { phase("requests"); requests(200000, Integer.MAX_VALUE); }
                case 4, 5 -> { phase("hot"); requests(400000, 500); }
                case 6 -> { phase("report"); for (int i = 0; i < 5; i++) report(); }
                case 7 -> { phase("text"); text(8000); }
            }
            if (customers.size() > 120000) {
                phase("shrink");
                int limit = next - 20000 - random.nextInt(40000);
                customers.keySet().removeIf(id -> id < limit);
                System.gc();
            }
            rest();
        }
    }
}
