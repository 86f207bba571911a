% SPDX-License-Identifier: Apache-2.0
% An engineer's session: matrices of very different sizes, kept for a while and then forgotten.
1;
function phase (name)
  system (["pmlguest phase " name]);
end
function rest ()
  phase ("idle");
  pause (0.3 + 5 * rand () ^ 2);
end
seed = str2double (getenv ("seed"));
rand ("twister", seed);
randn ("twister", seed);
kept = {};
works = {"solve", "filter", "sort", "image", "text"};
while true
  n = round (60 + 500 * rand () ^ 3);
  work = works{ceil (5 * rand ())};
  phase (work);
  switch work
    case "solve"
      n = min (n, 350);
      a = randn (n);
      result = a \ randn (n, 4);
    case "filter"
      x = randn (n * 1500, 1);
      result = filter (ones (1, 8) / 8, 1, x);
      result = real (ifft (fft (x)));
    case "sort"
      result = sort (rand (n * 2500, 1));
      result = cumsum (result(randperm (numel (result))));
    case "image"
      [x, y] = meshgrid (linspace (-3, 3, n));
      result = exp (-x .^ 2 - y .^ 2) .* sin (4 * x);
      result = conv2 (result, ones (3) / 9, "same");
    case "text"
      result = strsplit (sprintf ("%d ", round (1e6 * rand (1, n * 50))), " ");
      result = numel (unique (result));
  end
  kept{end + 1} = result;
  if numel (kept) > 12 || rand () < 0.1
    phase ("forget");
    kept = kept(max (1, end - 2):end);
  end
  if rand () < 0.7
    rest ();
  end
end
